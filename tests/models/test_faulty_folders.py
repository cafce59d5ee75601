"""Folders that hold no usable model: each has one message, with the cause and the cure, before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models_fixture import PROMPTS, inputs, make_folder
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GenerationConfig, T5Config, T5ForConditionalGeneration

from dareu.config import LoraConfig
from dareu.config.compose import compose
from dareu.errors import ConfigError, ModelError, RunError, first_line
from dareu.models.checks import check_causal, check_names
from dareu.models.files import check_files
from dareu.models.generate import generate, sample
from dareu.models.load import add_lora, load_model, load_tokenizer, save_model
from dareu.models.tiny import train_tokenizer
from dareu.models.without_weights import model_without_weights
from dareu.runs.files import disk_full, out_of_memory, unwritable

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("faulty") / "base")


@pytest.fixture()
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    file = folder / "model.safetensors"
    weights = {name: w.clone() for name, w in load_file(file).items()}  # the file may be mapped into memory
    save_file(change(weights), file, metadata={"format": "pt"})


def test_weights_that_are_not_finite_are_named(copy: Path) -> None:
    def broken(weights: Weights) -> Weights:
        name = "model.layers.0.mlp.up_proj.weight"
        return {**weights, name: torch.full_like(weights[name], float("nan"))}

    rewrite(copy, broken)
    with pytest.raises(ModelError, match=r"not finite: model\.layers\.0\.mlp\.up_proj\.weight\."):
        load_model(copy)


def test_one_line_of_what_a_library_says() -> None:
    assert first_line(ValueError("")) == "ValueError"
    assert first_line(ValueError("No such key.\nSee the docs.")) == "No such key"
    assert (
        first_line(ValueError("Error in x:\n  3 is no multiple of 2.\nmore"))
        == "Error in x: 3 is no multiple of 2"
    )


def test_a_config_that_contradicts_itself_and_a_tokenizer_that_is_none(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_attention_heads": 3}))
    with pytest.raises(ModelError, match="could be loaded"):  # how, depends on the release of transformers
        load_model(copy)
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelError, match="No tokenizer could be loaded"):
        load_tokenizer(copy)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{bad", "[]", "null"])
def test_a_file_of_settings_that_is_no_mapping(copy: Path, name: str, text: str) -> None:
    """transformers goes on without a generation config that it cannot read: sampling settings would be lost."""
    (copy / name).write_text(text)
    with pytest.raises(ModelError, match=f"{name} cannot be read: it is no JSON mapping"):
        load_model(copy)


def test_cures_of_what_transformers_refuses(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "foo9"}))
    with pytest.raises(ModelError, match="Install a newer transformers"):
        load_model(copy)
    own = {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "foo9", "auto_map": own}))
    with pytest.raises(ModelError, match="set model.trust_remote_code=true"):
        load_model(copy)


# --- names and sizes of weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_weights_under_other_names_are_refused(copy: Path, prefix: str) -> None:
    rewrite(copy, lambda weights: {prefix + name: w for name, w in weights.items()})
    with pytest.raises(ModelError, match=rf"lacks \d+ of the model's weights: .*others instead: {prefix}"):
        load_model(copy)


def test_one_missing_weight_is_named(copy: Path) -> None:
    lost = "model.layers.1.mlp.up_proj.weight"
    rewrite(copy, lambda weights: {name: w for name, w in weights.items() if name != lost})
    with pytest.raises(ModelError, match=f"lacks 1 of the model's weights: {lost}"):
        load_model(copy)


def test_a_missing_head_is_named_where_it_is_not_tied(copy: Path) -> None:
    settings = json.loads((copy / "config.json").read_text())
    settings["tie_word_embeddings"] = False
    (copy / "config.json").write_text(json.dumps(settings))
    rewrite(copy, lambda weights: {name: w for name, w in weights.items() if name != "lm_head.weight"})
    with pytest.raises(ModelError, match="lm_head.weight"):
        load_model(copy)


def test_a_block_that_the_config_does_not_know_is_named(copy: Path) -> None:
    extra = "model.layers.2.mlp.up_proj.weight"
    rewrite(copy, lambda weights: weights | {extra: torch.zeros(64, 32)})
    with pytest.raises(ModelError, match=f"has 1 weights for which its config.json has no place: {extra}"):
        load_model(copy)


def test_towers_for_other_senses_are_left_aside() -> None:
    found = {
        "missing_keys": set(),
        "unexpected_keys": {"model.vision_tower.patch.weight", "h.0.attention.bias"},
    }
    check_names(found, "here")
    check_names(
        {"missing_keys": {"score.weight"}, "unexpected_keys": {"lm_head.weight"}}, "here", new=("score",)
    )


def test_other_sizes_than_the_config_says(copy: Path) -> None:
    rewrite(copy, lambda weights: weights | {"model.norm.weight": torch.zeros(31)})
    with pytest.raises(ModelError, match="other sizes than its config.json says"):
        load_model(copy)


# --- files --------------------------------------------------------------------------------------------------------


def test_a_pointer_in_place_of_a_file(copy: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4421\n"
        (copy / name).write_bytes(pointer)
        with pytest.raises(ModelError, match=f"{name} was not downloaded.*git lfs pull"):
            check_files(copy)
        shutil.copy(copy / "config.json", copy / name)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_cut_weights(copy: Path, share: float) -> None:
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match="model.safetensors is (cut|no safetensors file)"):
        load_model(copy)
    file.write_bytes(whole + b"\0")
    with pytest.raises(ModelError, match="is damaged"):
        load_model(copy)


def test_an_index_may_not_name_pickled_weights(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    torch.save(weights, copy / "part.bin")
    (copy / "model.safetensors").unlink()
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, "part.bin")}))
    with pytest.raises(ModelError, match="names part.bin, which is not a safetensors file.*pickled"):
        load_model(copy)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(weights, "model-2.safetensors")}))
    with pytest.raises(ModelError, match="has no model-2.safetensors"):
        load_model(copy)


def test_a_pickled_adapter_is_not_read(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(folder)
    save_model(add_lora(model, LoraConfig()), tokenizer, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(file), tmp_path / "adapter" / "adapter_model.bin")
    shutil.move(file, tmp_path / "adapter" / "other.safetensors")
    with pytest.raises(ModelError, match="adapter_model.bin is pickled"):
        load_model(tmp_path / "adapter")


# --- kinds of model -----------------------------------------------------------------------------------------------


def test_encoders_are_no_causal_models(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder)
    small: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
    bert = BertForMaskedLM(BertConfig(**small))
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=len(tokenizer), d_model=32, d_ff=64, num_layers=1, num_heads=2, d_kv=16)
    )
    for name, model in (("bert", bert), ("t5", t5)):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    with pytest.raises(ModelError, match="no causal language model"):
        load_model(tmp_path / "bert")
    with pytest.raises(ModelError, match="No model could be loaded"):
        load_model(tmp_path / "t5")
    with pytest.raises(ModelError, match="reads a text in both directions"):
        check_causal(bert.eval(), "here")
    check_causal(load_model(folder)[0], "here")


def test_packages_that_are_missing_are_named(copy: Path) -> None:
    with pytest.raises(ModelError, match="FlashAttention2.*attn_implementation=sdpa"):
        load_model(copy, attn_implementation="flash_attention_2")
    with pytest.raises(ModelError, match="flash_atention.*Set model.attn_implementation to sdpa"):
        load_model(copy, attn_implementation="flash_atention")
    settings = json.loads((copy / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "awq", "bits": 4}
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="AWQ.*Install the package"):
        load_model(copy)


def test_quantised_weights_need_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dareu.models.quantised.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes.*pip install 'dareu\[quantise\]'"):
        load_model(folder, quantization="nf4")


# --- vocabularies -------------------------------------------------------------------------------------------------


def test_ids_that_no_token_has_are_never_sampled(copy: Path) -> None:
    """The padded rows of the head have by far the largest logits here."""
    model, tokenizer = load_model(copy)
    size = len(tokenizer)
    assert model.generation_config.suppress_tokens is None
    model.resize_token_embeddings(size + 16, mean_resizing=False)
    with torch.no_grad():
        loud = 50 * model.get_output_embeddings().weight[5:13].clone()
        model.get_output_embeddings().weight[size:] = torch.cat([loud, -loud])  # one of each two is large
    model.save_pretrained(copy)
    padded, tokenizer = load_model(copy)
    assert padded.generation_config.suppress_tokens == list(range(size, size + 16))
    options: dict[str, Any] = {"max_new_tokens": 8, "batch_size": 5}
    with torch.no_grad():
        assert (padded(**inputs(tokenizer, PROMPTS)).logits.argmax(-1) >= size).any()
    for answers in (
        generate(padded, tokenizer, PROMPTS, **options),
        generate(padded, tokenizer, PROMPTS, temperature=1.0, **options),
        *sample(padded, tokenizer, PROMPTS, count=2, temperature=1.0, **options),
    ):
        assert all(token < size for answer in answers for token in answer.ids)


def test_a_pad_token_beyond_the_embedding_gives_way(copy: Path) -> None:
    tokenizer = load_tokenizer(copy)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(copy)
    model, read = load_model(copy)
    assert read.pad_token_id == read.eos_token_id == model.generation_config.pad_token_id
    answers = generate(model, read, PROMPTS, max_new_tokens=3, batch_size=5)
    assert len(answers) == len(PROMPTS)


def test_an_end_of_text_beyond_the_embedding_is_refused(copy: Path) -> None:
    tokenizer = load_tokenizer(copy)
    tokenizer.add_special_tokens({"eos_token": "[END]"})
    tokenizer.save_pretrained(copy)
    with pytest.raises(ModelError, match="end-of-text token has the id .* rows"):
        load_model(copy)


def test_a_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    """Its words have ids beyond the embedding; tokens that were only added to it may."""
    rows = load_model(copy)[0].config.vocab_size
    own = load_tokenizer(copy)
    own.add_tokens(["[ADDED]"])
    own.save_pretrained(copy)
    load_model(copy)
    other = train_tokenizer([f"word{i:04d} of many" for i in range(5000)], vocab_size=rows + 50)
    other.save_pretrained(copy)
    with pytest.raises(ModelError, match="does not fit the model: .* tokens have no row in the embedding"):
        load_model(copy)


def test_a_tokenizer_without_offsets_is_refused(copy: Path) -> None:
    from transformers import ByT5Tokenizer

    (copy / "tokenizer.json").unlink()
    ByT5Tokenizer().save_pretrained(copy)
    with pytest.raises(ModelError, match="does not tell where in a text its tokens lie.*tokenizer.json"):
        load_tokenizer(copy)


def test_a_tokenizer_reads_a_text_whole_and_always_alike(copy: Path) -> None:
    """Whatever settings for training are saved in its file."""
    text = "Ada Finch keeps maps in the attic of the old house."
    plain = load_tokenizer(copy)(text, add_special_tokens=False)["input_ids"]
    tree = json.loads((copy / "tokenizer.json").read_text())
    tree["model"]["dropout"] = 0.5
    tree["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    tree["padding"] = {
        "strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "x",
    }  # fmt: skip
    (copy / "tokenizer.json").write_text(json.dumps(tree))
    tokenizer = load_tokenizer(copy)
    assert all(tokenizer(text, add_special_tokens=False)["input_ids"] == plain for _ in range(5))


# --- saving -------------------------------------------------------------------------------------------------------


def test_generation_settings_are_kept_for_the_folder_and_not_used_here(copy: Path, tmp_path: Path) -> None:
    shipped = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.1, eos_token_id=[1, 2]
    )
    shipped.save_pretrained(copy)
    model, tokenizer = load_model(copy)
    assert not model.generation_config.do_sample and model.generation_config.repetition_penalty in (None, 1.0)
    save_model(model, tokenizer, tmp_path / "full")
    adapted = add_lora(model, LoraConfig())
    save_model(adapted, tokenizer, tmp_path / "adapter")
    for name in ("full", "adapter"):
        kept = json.loads((tmp_path / name / "generation_config.json").read_text())
        assert kept["temperature"] == 0.6 and kept["do_sample"] and kept["eos_token_id"] == [1, 2]
        assert "suppress_tokens" not in kept


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    told = disk_full(SafetensorError("I/O error: No space left on device (os error 28)"), tmp_path)
    assert isinstance(told, RunError) and "disk is full" in told.cause and str(tmp_path) in told.cause
    torch_says = "[enforce fail at inline_container.cc:672] . unexpected pos 1394496 vs 1394388"
    assert disk_full(RuntimeError(torch_says), tmp_path)
    outer = RuntimeError("could not save")
    outer.__cause__ = OSError(28, "No space left on device", "weights")
    assert "weights" in str(disk_full(outer, tmp_path))
    for large in (
        OSError(27, "File too large", "weights"),
        SafetensorError("I/O error: File too large (os error 27)"),
    ):
        assert "ulimit -f" in str(disk_full(large, tmp_path))
    assert disk_full(OSError(13, "Permission denied"), tmp_path) is None
    assert disk_full(
        RuntimeError("basic_ios::clear: iostream error"), tmp_path
    )  # torch, at the end of a file
    copied = shutil.Error([("store/a", "run/a", "[Errno 28] No space left on device: 'store/a' -> 'run/a'")])
    assert "written to run/a" in str(
        disk_full(copied, tmp_path)
    )  # where the copy goes, not where it comes from
    told = unwritable(tmp_path / "run.json", OSError(28, "No space left on device"))
    assert "disk is full" in told.cause and "run.json" in told.cause
    assert disk_full(told, tmp_path / "store") is None  # a message of our own keeps its place


def test_used_up_memory_names_the_keys(tmp_path: Path) -> None:
    keys = "finetune.micro_batch_size or model.max_length"
    for error in (
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        SafetensorError("Cannot allocate memory (os error 12)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000000 bytes."
        ),
    ):
        outer = RuntimeError("a layer failed")
        outer.__cause__ = error
        told = out_of_memory(outer, "the stage 'original model'", keys)
        assert told is not None and "'original model'" in told.cause and keys in told.cure
    assert out_of_memory(RuntimeError("shapes do not match"), "it", keys) is None


def test_the_cpu_allocator_still_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value, "it", "keys")


@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.int8, "I8"), (torch.bool, "BOOL"), (torch.complex64, "C64")]
)
def test_other_types_in_place_of_weights(copy: Path, dtype: torch.dtype, kind: str) -> None:
    """As they are they would be read as weights of up to 127; with a quantisation in the config they are none."""
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(copy, lambda weights: {**weights, name: (weights[name] * 100).to(dtype)})
    with pytest.raises(ModelError, match=rf"holds {kind} in place of weights: model\.layers\.0\.mlp"):
        load_model(copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "x"}}))
    check_files(copy)


@pytest.mark.parametrize(
    ("value", "cause"), [(0, "its weights are zero"), (1, "no weights of a trained model")]
)
def test_weights_that_are_all_equal(copy: Path, value: int, cause: str) -> None:
    rewrite(copy, lambda weights: {name: torch.full_like(w, value) for name, w in weights.items()})
    with pytest.raises(ModelError, match=f"the same probability: .*{cause}"):
        load_model(copy)


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "max_position_embeddings"])
def test_a_shape_that_is_none(copy: Path, key: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {key: 0}))
    with pytest.raises(ModelError, match=f"says {key}=0, which has to be a positive number"):
        check_files(copy)


def test_a_shape_that_the_libraries_refuse_is_none_beforehand(copy: Path) -> None:
    """Reported where the weights are loaded, with whatever the libraries raise there."""
    config = json.loads((copy / "config.json").read_text())
    odd = {"rope_type": "nope", "rope_theta": 10000.0, "factor": 2.0}
    (copy / "config.json").write_text(json.dumps(config | {"rope_scaling": odd, "rope_parameters": odd}))
    run = compose(["model=hf", f"model.path={copy}", "method=npo"])
    assert model_without_weights(run) is None
    with pytest.raises(ModelError, match="could be loaded"):
        load_model(copy)


@pytest.mark.parametrize("theta", [0, -1.0, "10000", float("nan")])
@pytest.mark.parametrize("key", ["rope_theta", "rope_parameters"])
def test_a_base_of_positions_that_is_no_positive_number(copy: Path, theta: Any, key: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    changed = {"rope_theta": theta, "rope_type": "default"} if key == "rope_parameters" else theta
    (copy / "config.json").write_text(json.dumps(config | {key: changed}))
    with pytest.raises(ModelError, match="rope_theta="):
        load_model(copy)
