"""`dareu.Unlearner` on models that are given: objects, folders and names, full models and adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from unlearner_fixture import GONE, QUESTIONS, ROWS, TINY, given, load, logits

from dareu import Unlearner
from dareu.config import AuthorsConfig
from dareu.config.compose import compose
from dareu.data.sources.authors import make_authors
from dareu.errors import ConfigError, ModelError, RunError
from dareu.workflow.keys import imported_key
from dareu.workflow.prepare import run_tokenizer


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to `runs/` in the working directory, artifacts to the user's cache, unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAREU_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact store that the tests share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def elsewhere(store: Path) -> Path:
    """A folder with a full model that was fine-tuned on the rows by somebody else."""
    made = Unlearner(data=ROWS, forget=GONE, cache_dir=store, verbose=False, **TINY)
    return Path(shutil.copytree(made._path_of("original"), store / "elsewhere"))


def test_an_object_and_its_folder_give_the_same_results(elsewhere: Path, tmp_path: Path) -> None:
    model, tokenizer = load(elsewhere)
    before = {name: p.clone() for name, p in model.named_parameters()}
    pair = [
        given(model, tokenizer, cache_dir=tmp_path / "cache one", run_dir="one", method="dareu"),
        given(elsewhere, cache_dir=tmp_path / "cache two", run_dir="two", method="dareu"),
    ]
    one, two = (found.fit().evaluate() for found in pair)
    assert one["models"] == two["models"] and set(one["models"]) == {"original", "unlearned"}
    assert one["models"]["original"] != one["models"]["unlearned"]
    assert one["seconds"]["original"] is None
    assert one["tug_of_war"] is None and "no retrained model" in one["missing"]["tug_of_war"]
    assert pair[0].generate(QUESTIONS) == pair[1].generate(QUESTIONS)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_full_model_is_unlearned_through_an_adapter(elsewhere: Path, tmp_path: Path) -> None:
    found = given(elsewhere, method="dareu", **{"model.lora.r": 2}).fit()
    assert isinstance(found.model, PeftModel) and found.model.peft_config["default"].r == 2
    original = logits(*load(elsewhere))
    with found.model.disable_adapter():
        assert torch.equal(logits(found.model, found.tokenizer), original)
    unlearned = logits(found.model, found.tokenizer)
    assert not torch.allclose(unlearned, original, atol=1e-3)
    merged, tokenizer = load(found.save_pretrained(tmp_path / "merged"))
    assert {p.name for p in (tmp_path / "merged").glob("*.safetensors")} == {"model.safetensors"}
    assert torch.allclose(logits(merged, tokenizer), unlearned, atol=1e-5)
    assert torch.equal(logits(found.model, found.tokenizer), unlearned)  # saving left it alone
    found.save_pretrained(tmp_path / "adapter", merge=False)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    assert torch.equal(logits(*load(tmp_path / "adapter")), unlearned)
    with pytest.raises(RunError, match="holds an adapter"):  # transformers would load that one
        found.save_pretrained(tmp_path / "adapter")


def test_all_weights_are_trained_where_that_is_asked_for(elsewhere: Path, store: Path) -> None:
    found = given(elsewhere, cache_dir=store, **{"model.adapter": "none"}).fit()
    adapted = given(elsewhere, cache_dir=store).fit()
    assert isinstance(adapted.model, PeftModel) and not isinstance(found.model, PeftModel)
    original, _ = load(elsewhere)
    changed = [
        not torch.equal(p, q) for p, q in zip(found.model.parameters(), original.parameters(), strict=True)
    ]
    assert all(changed)


def test_how_a_given_model_is_read_counts(elsewhere: Path, store: Path) -> None:
    found = [
        given(elsewhere, cache_dir=store, **{"model.chat_template": kind}).fit() for kind in ("auto", "none")
    ]
    originals, unlearned = ([each._path_of(n) for each in found] for n in ("original", "unlearned"))
    assert originals[0] == originals[1] and unlearned[0] != unlearned[1]
    assert found[0].tokenizer.chat_template and not found[1].tokenizer.chat_template


def test_the_data_of_a_given_model_counts(elsewhere: Path, store: Path) -> None:
    found = [given(elsewhere, data=rows, cache_dir=store) for rows in (ROWS, [*ROWS[:-1], ROWS[0]])]
    paths = [each.fit()._path_of("unlearned") for each in found]
    assert paths[0] != paths[1]


def test_an_edit_of_one_layer_is_another_model(tmp_path: Path) -> None:
    weights = bytearray(5 << 20)
    keys = []
    for place in (0, 3 << 20):
        weights[place] = 1
        (tmp_path / "model.safetensors").write_bytes(weights)
        keys.append(imported_key(tmp_path))
    assert keys[0] != keys[1]


def test_a_given_original_is_read_by_its_own_tokenizer(elsewhere: Path) -> None:
    corpus = make_authors(AuthorsConfig(version=1, owners=4, pairs=4, facts=4))
    config = compose(
        ["model=tiny", "model.vocab_size=280", "model.pretrain=null"], None, {"original": str(elsewhere)}
    )
    found = run_tokenizer(config, corpus)
    assert found.get_vocab() == AutoTokenizer.from_pretrained(elsewhere).get_vocab()
    without = config.model_copy(update={"original": None})
    assert len(run_tokenizer(without, corpus)) == 280


def adapted(model: Any, **settings: Any) -> Any:
    """`model` under a LoRA adapter that does something."""
    torch.manual_seed(0)
    peft = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"), **settings
    )
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return peft


@pytest.mark.parametrize("name", ["default", "mine"])
def test_an_adapter_is_unlearned_where_it_is(name: str, elsewhere: Path, store: Path) -> None:
    model, tokenizer = load(elsewhere)
    model = adapted(model, adapter_name=name)
    found = given(model, cache_dir=store).fit()  # the tokenizer lies with the base
    assert torch.equal(logits(*load(found._path_of("original"))), logits(model, tokenizer))
    kept = json.loads((found._path_of("original") / "adapter_config.json").read_text())
    assert kept["base_model_name_or_path"] == str(elsewhere)
    assert kept["target_modules"] == sorted(kept["target_modules"])
    assert set(found.model.peft_config) == {"default"} and found.model.peft_config["default"].r == 2
    whole = given(model, cache_dir=store, **{"model.adapter": "none"}).fit()
    assert not isinstance(whole.model, PeftModel)


def test_an_adapter_without_a_base_on_disk_is_merged(elsewhere: Path, store: Path) -> None:
    model, tokenizer = load(elsewhere)
    model.name_or_path = model.config._name_or_path = ""
    model = adapted(model)
    model.peft_config["default"].base_model_name_or_path = None
    with pytest.raises(ModelError, match="No tokenizer was passed"):
        given(model, cache_dir=store).fit()
    found = given(model, tokenizer, cache_dir=store).fit()
    kept, _ = load(found._path_of("original"))
    assert not isinstance(kept, PeftModel) and isinstance(model, PeftModel)
    assert torch.allclose(logits(kept, tokenizer), logits(model, tokenizer), atol=1e-5)


def test_a_base_is_fine_tuned_first_and_retrained_too(elsewhere: Path, store: Path) -> None:
    base, tokenizer = load(elsewhere)
    found = given(base, tokenizer, finetune=True, cache_dir=store, **{"finetune.epochs": 2})
    results = found.fit().evaluate()
    assert set(results["models"]) == {"original", "retrained", "unlearned"}
    original = found._path_of("original")
    assert not torch.equal(logits(*load(original)), logits(base, tokenizer))

    # That original is an adapter, which names its base: another one can be retrained beside it.
    assert (original / "adapter_config.json").is_file()
    again = given(str(original), retrain=True, cache_dir=store, run_dir="again", **{"finetune.epochs": 2})
    assert again.fit().evaluate()["models"]["retrained"] == results["models"]["retrained"]


def test_a_tokenizer_may_lie_elsewhere(elsewhere: Path, store: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copy(elsewhere / name, bare)
    with pytest.raises(ModelError, match="No tokenizer was passed"):
        given(bare, cache_dir=store).fit()
    found = given(bare, str(elsewhere), cache_dir=store).fit()
    assert found.generate(QUESTIONS, of="original") == given(elsewhere, cache_dir=store).generate(
        QUESTIONS, of="original"
    )
    assert sorted(p.name for p in bare.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


def test_a_name_is_found_in_the_hub_cache(
    elsewhere: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="There is no model 'someone/something'"):
        given("someone/something", cache_dir=store).fit()
    repo = tmp_path / "hub" / "models--someone--something"
    shutil.copytree(elsewhere, repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = given("someone/something", cache_dir=store).fit()
    assert found._path_of("original") == given(elsewhere, cache_dir=store).fit()._path_of("original")


def test_a_retrained_model_needs_to_know_its_base(elsewhere: Path) -> None:
    with pytest.raises(ConfigError, match="base that the original was fine-tuned from"):
        given(elsewhere, retrain=True)
    assert given(elsewhere, retrain=True, **{"model.path": str(elsewhere)}).config.retrain


def test_a_model_without_a_head_is_refused(elsewhere: Path) -> None:
    with pytest.raises(ModelError, match="no causal language model"):
        given(AutoModel.from_pretrained(elsewhere))


def test_a_model_without_weights_is_refused(elsewhere: Path) -> None:
    shape = AutoConfig.from_pretrained(elsewhere)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(shape)
    with pytest.raises(ModelError, match="weights that are not in memory"):
        given(empty)
