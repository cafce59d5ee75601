"""Adapters that others made: kept where they are plain LoRA, folded into their base elsewhere, refused where they do
not belong to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from models_fixture import PROMPTS, inputs, make_folder
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig, MixtralConfig

from dareu.config import LoraConfig
from dareu.errors import ModelError
from dareu.models.import_model import merged as exported
from dareu.models.import_model import write_model
from dareu.models.load import (
    add_lora,
    freeze_original,
    is_peft,
    load_model,
    load_tokenizer,
    reference_logits,
    save_model,
)
from dareu.models.merge import merged

pytestmark = pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`", "ignore:.*tie_word_embeddings"
)
LORA: dict[str, Any] = {"r": 2, "task_type": "CAUSAL_LM"}
ALL = LORA | {"target_modules": "all-linear"}
QV = LORA | {"target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("others") / "base")


def stir(model: Any, scale: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def saved(folder: Path, config: Any, target: Path, rows: int | None = None) -> Any:
    """A stirred adapter as peft saves it, without a tokenizer; the model that it was."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    if rows:
        base.resize_token_embeddings(rows, mean_resizing=False)
    model = peft.get_peft_model(base, config)
    stir(model)
    model.save_pretrained(target)
    return model.eval()


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (peft.LoraConfig(**ALL, use_dora=True), True),
        (peft.LoraConfig(**ALL, use_rslora=True, rank_pattern={"q_proj": 4}), True),
        (peft.LoraConfig(**QV, bias="lora_only"), False),
        (peft.LoraConfig(**QV, trainable_token_indices=[5, 6]), False),
        (peft.LoraConfig(**QV, layers_to_transform=[1], alpha_pattern={"q_proj": 7}), True),
        (peft.LoraConfig(**QV, init_lora_weights="pissa"), False),
        (peft.LoraConfig(**LORA, target_modules=["q_proj", "lm_head"]), False),
        (peft.LoraConfig(**LORA, target_modules=["q_proj", "embed_tokens"]), False),
        (peft.LoraConfig(**QV, modules_to_save=["embed_tokens", "lm_head"]), False),
        (
            peft.IA3Config(
                task_type="CAUSAL_LM",
                target_modules=["k_proj", "down_proj"],
                feedforward_modules=["down_proj"],
            ),
            False,
        ),
        (
            peft.AdaLoraConfig(
                task_type="CAUSAL_LM",
                target_modules=["q_proj"],
                init_r=4,
                target_r=2,
                tinit=1,
                tfinal=1,
                total_step=10,
            ),
            False,
        ),
    ],
    ids=[
        "dora",
        "rslora",
        "bias",
        "tokens",
        "layers",
        "pissa",
        "head",
        "embedding",
        "saved",
        "ia3",
        "adalora",
    ],
)
def test_what_is_loaded_says_what_was_saved(folder: Path, tmp_path: Path, config: Any, plain: bool) -> None:
    before = saved(folder, config, tmp_path / "adapter")
    model, tokenizer = load_model(tmp_path / "adapter")
    batch = inputs(tokenizer, PROMPTS)
    torch.testing.assert_close(logits(model, batch), logits(before, batch), atol=1e-3, rtol=1e-3)
    assert is_peft(model) == plain
    if plain:
        said = logits(model, batch)
        with merged(model):
            torch.testing.assert_close(logits(model, batch), said, atol=1e-3, rtol=1e-3)
        assert torch.equal(logits(model, batch), said)
        reference = freeze_original(model)
        torch.testing.assert_close(reference_logits(model, reference, **batch), said, atol=1e-4, rtol=1e-4)


def test_an_adapter_on_a_resized_embedding(folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder)
    rows = len(tokenizer) + 8
    config = peft.LoraConfig(**QV, modules_to_save=["embed_tokens", "lm_head"])
    before = saved(folder, config, tmp_path / "adapter", rows)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    model, read = load_model(tmp_path / "adapter")
    batch = inputs(read, ["Who <one>", "<two> by"])
    torch.testing.assert_close(logits(model, batch), logits(before, batch), atol=1e-3, rtol=1e-3)
    assert model.generation_config.suppress_tokens == list(range(len(read), rows))


def test_an_adapter_with_biases_of_its_own(folder: Path, tmp_path: Path) -> None:
    """Merged they change the base's biases, which folding for a while would not put back."""
    config = peft.LoraConfig(**QV, lora_bias=True)
    saved(folder, config, tmp_path / "adapter")
    with pytest.raises(ModelError, match="cannot be merged: .*bias"):
        load_model(tmp_path / "adapter")
    shape = AutoConfig.from_pretrained(folder)
    shape.attention_bias = True
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path / "biased")
    load_tokenizer(folder).save_pretrained(tmp_path / "biased")
    before = saved(tmp_path / "biased", config, tmp_path / "other")
    model, tokenizer = load_model(tmp_path / "other")
    batch = inputs(tokenizer, PROMPTS)
    torch.testing.assert_close(logits(model, batch), logits(before, batch), atol=1e-3, rtol=1e-3)
    assert not is_peft(model)


def test_an_adapter_that_acts_from_some_tokens_on_is_refused(folder: Path, tmp_path: Path) -> None:
    saved(folder, peft.LoraConfig(**QV, alora_invocation_tokens=[2, 3]), tmp_path / "adapter")
    with pytest.raises(ModelError, match="aLoRA, whose weights act only from its alora_invocation_tokens on"):
        load_model(tmp_path / "adapter")


def test_prompt_tuning_has_no_weights(folder: Path, tmp_path: Path) -> None:
    saved(folder, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), tmp_path / "adapter")
    with pytest.raises(ModelError, match="PROMPT_TUNING, which has no weights to merge"):
        load_model(tmp_path / "adapter")


def test_an_adapter_that_fits_nothing(folder: Path, tmp_path: Path) -> None:
    saved(folder, peft.LoraConfig(**ALL), tmp_path / "adapter")
    file, settings = (
        tmp_path / "adapter" / name for name in ("adapter_model.safetensors", "adapter_config.json")
    )
    # Copies: the file that older releases of safetensors map into memory is written anew below.
    weights = {name: w.clone() for name, w in load_file(file).items()}
    config = json.loads(settings.read_text())
    save_file({name.replace(".layers.", ".blocks."): w for name, w in weights.items()}, file)
    with pytest.raises(ModelError, match=r"does not fit its base .*blocks\.0.* find no place"):
        load_model(tmp_path / "adapter")
    save_file({name: w for name, w in weights.items() if "layers.1" not in name}, file)
    with pytest.raises(ModelError, match=r"layers\.1.* are missing"):
        load_model(tmp_path / "adapter")
    save_file({name: torch.cat([w, w], -1) for name, w in weights.items()}, file)
    with pytest.raises(ModelError, match="does not fit its base .*size mismatch"):
        load_model(tmp_path / "adapter")
    save_file(weights, file)
    settings.write_text(json.dumps(config | {"target_modules": ["c_attn"]}))
    with pytest.raises(ModelError, match="does not fit its base .*c_attn"):
        load_model(tmp_path / "adapter")
    settings.write_text(json.dumps(config | {"peft_type": "FOO"}))
    with pytest.raises(ModelError, match="of the kind FOO, which this version of peft does not know"):
        load_model(tmp_path / "adapter")
    settings.write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "adapter")}))
    with pytest.raises(ModelError, match="as its base, which is an adapter itself"):
        load_model(tmp_path / "adapter")


@pytest.mark.parametrize("targets", [["q_proj", "embed_tokens"], ["q_proj", "lm_head"]])
def test_an_adapter_on_a_tied_embedding_merges_into_one_of_both(folder: Path, targets: list[str]) -> None:
    base, tokenizer = load_model(folder)
    assert base.get_input_embeddings().weight is base.get_output_embeddings().weight, (
        "the fixture's base is tied"
    )
    model = add_lora(base, LoraConfig(target_modules=targets, dropout=0.0))
    stir(model)
    batch = inputs(tokenizer, PROMPTS)
    said = logits(model, batch)
    with merged(model):
        torch.testing.assert_close(logits(model, batch), said, atol=1e-3, rtol=1e-3)
    assert torch.equal(logits(model, batch), said)
    torch.testing.assert_close(logits(exported(model), batch), said, atol=1e-3, rtol=1e-3)
    assert torch.equal(logits(model, batch), said)


def test_keys_for_dora_and_rslora(folder: Path) -> None:
    plain, dora, rslora = (
        add_lora(load_model(folder)[0], LoraConfig(r=4, alpha=8, **options))
        for options in ({}, {"dora": True}, {"rslora": True})
    )
    names = [name for name, _ in dora.named_parameters() if "magnitude" in name]
    assert names and not any("magnitude" in name for name, _ in plain.named_parameters())
    scales = [
        next(m for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)).scaling["default"]
        for model in (plain, rslora)
    ]
    assert scales == [2.0, 4.0]  # 8 / 4 and 8 / √4


@pytest.mark.parametrize("write", [save_model, lambda model, _, folder: write_model(model, folder)])
def test_transformers_and_peft_read_a_dora_adapter_alike(
    folder: Path, tmp_path: Path, write: Callable[[Any, Any, Path], None]
) -> None:
    base, tokenizer = load_model(folder)
    model = add_lora(base, LoraConfig(dropout=0.0, dora=True)).eval()
    stir(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "magnitude" in name:  # transformers would begin with the base's norms
                weight.mul_(1.5)
    batch = inputs(tokenizer, PROMPTS)
    said = logits(model, batch)
    write(model, tokenizer, tmp_path / "adapter")
    for auto in (AutoModelForCausalLM, peft.AutoPeftModelForCausalLM):
        read = auto.from_pretrained(tmp_path / "adapter").eval()
        torch.testing.assert_close(logits(read, batch), said, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(load_model(tmp_path / "adapter")[0], batch), said, atol=1e-5, rtol=1e-5)


def test_a_model_that_all_linear_does_not_fit() -> None:
    """peft takes no adapter on two of Mamba's layers."""
    shape = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    cures: list[tuple[Any, str]] = [
        ("all-linear", "model.adapter=none"),
        (["queries"], "leave it at all-linear"),
    ]
    for targets, cure in cures:
        with pytest.raises(ModelError, match=f"No LoRA adapter could be added: .*{cure}"):
            add_lora(AutoModelForCausalLM.from_config(shape), LoraConfig(target_modules=targets))
    add_lora(AutoModelForCausalLM.from_config(shape), LoraConfig(target_modules=["in_proj"]))


def test_a_mixture_of_experts(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    shape: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 16}
    shape |= {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
    }
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(MixtralConfig(**shape, initializer_range=0.3)).eval()
    with pytest.raises(ModelError, match="mixture of experts.*model.lora.dropout=0"):
        add_lora(base, LoraConfig())
    model = add_lora(base, LoraConfig(r=2, dropout=0.0)).eval()
    stir(model, 0.02)
    assert any("experts" in name and p.requires_grad for name, p in model.named_parameters())
    batch = inputs(tokenizer, PROMPTS)
    said = logits(model, batch)
    with merged(model):
        torch.testing.assert_close(logits(model, batch), said, atol=1e-3, rtol=1e-3)
    assert torch.equal(logits(model, batch), said)
