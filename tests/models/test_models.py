"""Loading and saving of models and tokenizers, and the tiny base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from attribution_fixture import words
from models_fixture import PROMPTS, SMALL, TEXTS, inputs, make_folder
from transformers import PreTrainedTokenizerFast

from dareu.config import AuthorsConfig, TinyConfig
from dareu.data.render import encode, render_prompt
from dareu.data.sources.registry import load_background
from dareu.errors import ConfigError, ModelError
from dareu.models.load import load_model, load_tokenizer, pick_device, save_model
from dareu.models.tiny import make_tiny, train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "base")


# --- full models --------------------------------------------------------------------------------------------------


def test_a_model_is_the_same_after_saving_and_loading(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(folder)
    assert not model.training and tokenizer.padding_side == "left"
    save_model(model, tokenizer, tmp_path / "copy")
    again, read = load_model(tmp_path / "copy")
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    batch = inputs(tokenizer, PROMPTS)
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, again(**batch).logits)
    assert read.get_vocab() == tokenizer.get_vocab() and read.chat_template == tokenizer.chat_template
    assert again.config.pad_token_id == again.generation_config.pad_token_id == read.pad_token_id
    assert [p.suffix for p in (tmp_path / "copy").iterdir() if p.suffix in (".bin", ".pt")] == []


def test_a_frozen_head_is_not_copied_for_each_row(folder: Path) -> None:
    """torch copies it B times where its input is a view, which the last hidden states of a prompt are."""
    from transformers import GenerationConfig

    model, tokenizer = load_model(folder)
    model.requires_grad_(False)
    blocks: list[bool] = []
    model.get_output_embeddings().register_forward_hook(
        lambda head, given, out: blocks.append(given[0].is_contiguous())
    )
    model.generate(**inputs(tokenizer, PROMPTS), generation_config=GenerationConfig(max_new_tokens=2))
    assert blocks and all(blocks)


def test_weights_come_in_the_type_asked_for(folder: Path) -> None:
    assert load_model(folder)[0].dtype == torch.float32
    assert load_model(folder, dtype="bfloat16")[0].dtype == torch.bfloat16
    assert load_model(folder, dtype="auto")[0].dtype == torch.float32


def test_model_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(bare)
    torch.save({}, bare / "pytorch_model.bin")  # pickled weights are no weights
    with pytest.raises(ModelError, match="holds no weights.*pickled"):
        load_model(bare)
    shutil.copytree(folder, tmp_path / "headless", ignore=shutil.ignore_patterns("config.json"))
    with pytest.raises(ModelError, match="No .* could be loaded from .*headless.*save_pretrained"):
        load_model(tmp_path / "headless")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelError, match="nothing holds no weights"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match="No tokenizer could be loaded from .*nothing.*tokenizer files"):
        load_tokenizer(tmp_path / "nothing")
    with pytest.raises(ModelError, match="no such local folder; as a hub id it needs the network"):
        load_model("nobody/no-such-model")


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", str(torch.accelerator.current_accelerator() or "cpu"))
    for name in ("gpu", "meta", "cuda:99"):
        with pytest.raises(ConfigError, match=f"no device '{name}' here.*device=auto"):
            pick_device(name)


# --- tokenizers ---------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_of_text(tmp_path: Path) -> None:
    tokenizer = words(["Who", "wrote", "it"])
    assert tokenizer.pad_token_id is None
    tokenizer.save_pretrained(tmp_path)
    read = load_tokenizer(tmp_path)
    assert read.pad_token_id == read.eos_token_id == tokenizer.eos_token_id
    padded = read(["Who wrote it", "Who"], padding=True)
    assert padded["input_ids"][1] == [1, 1, read.convert_tokens_to_ids("Who")]
    assert padded["attention_mask"][1] == [0, 0, 1]


def test_a_model_with_such_a_tokenizer_loads(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "m")
    _, tokenizer = load_model(folder)
    path = tmp_path / "m" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    assert settings.pop("pad_token") == tokenizer.pad_token
    path.write_text(json.dumps(settings))
    model, read = load_model(tmp_path / "m")
    assert read.pad_token_id == read.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert model.config.pad_token_id == model.generation_config.pad_token_id == read.eos_token_id


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    core = words(["Who"]).backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no end-of-text token"):
        load_tokenizer(tmp_path)


# --- the tiny base ------------------------------------------------------------------------------------------------


def test_the_default_tiny_model_has_about_a_million_parameters(tmp_path: Path) -> None:
    background = load_background(AuthorsConfig(), TinyConfig().pretrain)
    assert background is not None
    make_tiny(TinyConfig(), background.texts, 0, tmp_path)
    model, tokenizer = load_model(tmp_path)
    # embeddings, tied to the head; four layers of four 128², three 128·344 and two norms; the last norm
    assert len(tokenizer) == 1800
    by_hand = 1800 * 128 + 4 * (4 * 128**2 + 3 * 128 * 344 + 2 * 128) + 128
    assert sum(p.numel() for p in model.parameters()) == by_hand == 1_022_080
    assert model.config.max_position_embeddings == 128
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id


def test_a_tiny_model_is_a_function_of_its_seed(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        make_tiny(SMALL, TEXTS, seed, tmp_path / name)
        return dict(load_model(tmp_path / name)[0].state_dict())

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one = weights("one", 3)
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(2)
    same, other = weights("same", 3), weights("other", 4)
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    "text", ["Who wrote the second well?", "  two  spaces\n", "Østby — “début” 日本語", ""]
)
def test_the_tiny_tokenizer_loses_nothing(text: str) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert not set(tokenizer(text)["input_ids"]) & set(tokenizer.all_special_ids)


def test_the_tiny_template_is_made_of_special_tokens(folder: Path) -> None:
    _, tokenizer = load_model(folder)
    rendered = render_prompt(tokenizer, "Who?")
    assert rendered == "<|user|>Who?<|assistant|>"
    row: Any = encode(tokenizer, "Who?", "Jonas")
    user, assistant = (tokenizer.convert_tokens_to_ids(f"<|{r}|>") for r in ("user", "assistant"))
    assert row.prompt_ids[0] == user and row.prompt_ids[-1] == assistant
    assert row.response_ids[-1] == tokenizer.eos_token_id
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Jonas"}], tokenize=False
    )
    assert tokenizer(whole, add_special_tokens=False)["input_ids"] == row.prompt_ids + row.response_ids
