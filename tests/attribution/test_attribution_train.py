"""Fitting the causal classifier: what it learns from, resuming, backbones, quality on generated authors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attribution_fixture import bpe, toy_config, toy_samples
from sklearn.metrics import roc_auc_score
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM

from dareu.attribution import train as training
from dareu.attribution.backbone import build_backbone
from dareu.attribution.causal import CausalAttributor
from dareu.attribution.examples import make_nobody
from dareu.attribution.heldout import unseen_texts
from dareu.attribution.name_masking import NameMasker
from dareu.attribution.registry import load_attributor
from dareu.attribution.train import fit_causal, with_wrong_owners
from dareu.config import AttributorConfig, AttributorOptim, AuthorsConfig
from dareu.data.corpus import Sample
from dareu.data.sources.authors import make_authors
from dareu.data.split import holdout
from dareu.errors import DataError, ModelError, TrainingError
from dareu.runs.checkpoints import last_checkpoint

SAMPLES = toy_samples()
TEXTS = [sample.response for sample in SAMPLES]
TOKENIZER = bpe(TEXTS, 300)


def fit(**changes: Any) -> tuple[CausalAttributor, dict[str, Any]]:
    given: dict[str, Any] = {"samples": SAMPLES, "config": toy_config(), "tokenizer": TOKENIZER} | changes
    return fit_causal(**given)


def same_weights(one: CausalAttributor, other: CausalAttributor) -> bool:
    a, b = one.model.state_dict(), other.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Steps:
    """Counts the batches of a fit, and cuts it off after `stop` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.stop = 0, 10**9
        loss = training._loss

        def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
            if self.count >= self.stop:
                raise KeyboardInterrupt
            self.count += 1
            return loss(*args, **kwargs)

        monkeypatch.setattr(training, "_loss", counted)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    yield Steps(monkeypatch)


def test_resume_equals_undisturbed(tmp_path: Path, steps: Steps) -> None:
    undisturbed, report = fit()
    total, steps.count = steps.count, 0
    assert total == 30  # 22 gold, 44 endings of them and 11 nobody examples in batches of 8, 3 epochs
    steps.stop = 8
    with pytest.raises(KeyboardInterrupt):
        fit(work_dir=tmp_path)
    steps.count, steps.stop = 0, 10**9
    resumed, again = fit(work_dir=tmp_path)
    assert steps.count == total - 7  # from the checkpoint at step 7, in the middle of an epoch
    assert same_weights(resumed, undisturbed) and again == report
    # a fit that was cut off after its training is not trained again
    steps.count = 0
    finished, last = fit(work_dir=tmp_path)
    assert steps.count == 0 and same_weights(finished, undisturbed) and last == report


def test_resume_passes_over_half_written_checkpoints_and_other_fits(tmp_path: Path, steps: Steps) -> None:
    fit(work_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert last_checkpoint(folder) == last
    (folder / "checkpoint-99").mkdir()  # killed before it was marked
    (folder / "checkpoint-99" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(folder) == last
    steps.count = 0
    other, _ = fit(work_dir=tmp_path, seed=1)
    assert steps.count == 30 and same_weights(other, fit(seed=1)[0])


def test_the_response_alone_is_read() -> None:
    asked_otherwise = [
        replace(s, prompt=f"{s.owner}, {i}!", paraphrased_prompts=("?",)) for i, s in enumerate(SAMPLES)
    ]
    assert same_weights(fit()[0], fit(samples=asked_otherwise)[0])


def test_blinded_responses_and_endings_are_learnt_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [replace(s, prompt=f"Whom did {s.owner} meet?") for s in SAMPLES]
    masker = NameMasker.fit(asked)
    assert masker.common == {"whom", "did", "meet"}
    learnt: list[tuple[str, int]] = []
    build = training.build_examples

    def spy(tokenizer: Any, gold: Any, *args: Any, **kwargs: Any) -> Any:
        learnt.extend(gold)
        return build(tokenizer, gold, *args, **kwargs)

    monkeypatch.setattr(training, "build_examples", spy)
    fitted, report = fit(samples=asked, masker=masker, config=toy_config(crops=1, optim={"steps": 1}))
    # 22 of 24 responses, the same without the names that all of them begin with, and an ending of each; an ending
    # that two draws agree on is learnt once
    assert report["n_train"] == 44 and report["n_heldout"] == 2
    assert 44 < len(learnt) <= 88 and len(set(learnt)) == len(learnt)
    whole, masked, endings = learnt[:22], learnt[22:44], learnt[44:]
    assert all(text in TEXTS for text, _ in whole)
    assert masked == [("_ _" + t.removeprefix(fitted.owners[label]), label) for t, label in whole]
    for ending, label in endings:
        assert ending and any(text.endswith(" " + ending) for text, same in learnt[:44] if same == label)
    assert report["accuracy_heldout_blinded"] is not None
    assert fit(config=toy_config(optim={"steps": 1}))[1]["accuracy_heldout_blinded"] is None


def test_a_copy_of_what_was_learnt_is_not_held_out() -> None:
    twins = [replace(s, id=s.id + "+", response=SAMPLES[0].response) for s in SAMPLES[:8]]
    _, report = fit(samples=[*SAMPLES, *twins], config=toy_config(holdout=0.25))
    _, out = holdout([*SAMPLES, *twins], 0.25, seed=0)
    copies = [s for s in out if s.response == SAMPLES[0].response]
    assert copies and report["n_heldout"] == len(out) - len(copies)
    assert report["n_train"] == 32 - len(out)


def test_the_seed_decides() -> None:
    (one, a), (two, b), (other, _) = fit(), fit(), fit(seed=1)
    assert same_weights(one, two) and a == b and not same_weights(one, other)


def test_micro_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)  # drawn for each micro-batch anew
    whole = fit()[0]
    split = fit(config=toy_config(optim={"micro_batch_size": 2}))[0]
    assert np.abs(whole.probabilities(TEXTS) - split.probabilities(TEXTS)).max() < 1e-3


@pytest.mark.parametrize("bf16", [False, True])
def test_saved_as_it_was_fitted(tmp_path: Path, bf16: bool) -> None:
    fitted, _ = fit(config=toy_config(optim={"bf16": bf16}))
    fitted.save(tmp_path)
    loaded = load_attributor(tmp_path)
    assert fitted.nobody and fitted.end_of_text and fitted.temperature != 1.0
    assert np.array_equal(loaded.probabilities(TEXTS), fitted.probabilities(TEXTS))


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    tokenizer = bpe(TEXTS, 280)  # not the policy's
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_pretrained_backbone(causal_folder: Path, tmp_path: Path, adapter: str, steps: Steps) -> None:
    config = toy_config(backbone={"path": str(causal_folder), "adapter": adapter}, optim={"lr": 1e-2})
    fitted, report = fit(config=config)
    assert not fitted.end_of_text and not fitted.shares_tokenizer(TOKENIZER)
    guess = fitted.probabilities(TEXTS).argmax(axis=1)
    assert np.mean([fitted.owners[i] == s.owner for i, s in zip(guess, SAMPLES, strict=True) if i < 3]) > 0.9
    base = LlamaForCausalLM.from_pretrained(causal_folder).model.state_dict()
    tuned = fitted.model.model.state_dict()
    assert base.keys() == tuned.keys()  # the adapter is merged: nothing is left of it
    assert torch.equal(base["embed_tokens.weight"], tuned["embed_tokens.weight"]) is (adapter == "lora")
    assert not torch.equal(base["layers.0.mlp.up_proj.weight"], tuned["layers.0.mlp.up_proj.weight"])

    fitted.save(tmp_path / "saved")
    assert np.array_equal(
        load_attributor(tmp_path / "saved").probabilities(TEXTS), fitted.probabilities(TEXTS)
    )

    steps.count, steps.stop = 0, 8
    with pytest.raises(KeyboardInterrupt):
        fit(config=config, work_dir=tmp_path / "work")
    steps.stop = 10**9
    resumed, again = fit(config=config, work_dir=tmp_path / "work")
    assert same_weights(resumed, fitted) and again == report


def test_adapter_as_set(causal_folder: Path) -> None:
    settings = {
        "r": 4,
        "alpha": 8.0,
        "dropout": 0.25,
        "dora": True,
        "rslora": True,
        "target_modules": ["q_proj"],
    }
    config = toy_config(backbone={"path": str(causal_folder), "lora": settings})
    model, _ = build_backbone(config, 3, None)
    adapted = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    assert adapted and all(name.endswith("q_proj") for name in adapted)
    for layer in adapted.values():
        assert layer.r["default"] == 4 and layer.lora_dropout["default"].p == 0.25
        assert layer.scaling["default"] == 8 / 4**0.5  # rsLoRA; alpha / r without
        assert "default" in layer.lora_magnitude_vector  # DoRA


def test_backbones_that_cannot_be_used(tmp_path: Path) -> None:
    bert = BertConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    BertForMaskedLM(bert).save_pretrained(tmp_path / "bert")
    TOKENIZER.save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="not causal"):
        fit(config=toy_config(backbone={"path": str(tmp_path / "bert"), "adapter": "none"}))
    (tmp_path / "bert" / "model.safetensors").rename(tmp_path / "bert" / "elsewhere")
    torch.save({}, tmp_path / "bert" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):  # a pickle is not loaded
        fit(config=toy_config(backbone={"path": str(tmp_path / "bert")}))
    with pytest.raises(ModelError, match="no tokenizer"):
        fit(tokenizer=None)


def test_remote_code_stays_off(causal_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    load = training.build_backbone.__globals__["AutoModelForTokenClassification"].from_pretrained

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.append((kwargs["trust_remote_code"], kwargs["use_safetensors"]))
        return load(*args, **kwargs)

    monkeypatch.setattr(
        training.build_backbone.__globals__["AutoModelForTokenClassification"], "from_pretrained", spy
    )
    fit(config=toy_config(backbone={"path": str(causal_folder)}, optim={"steps": 1}))
    assert asked == [(False, True)]


def test_unusable_samples() -> None:
    with pytest.raises(DataError, match="without an owner"):
        fit(samples=[*SAMPLES, replace(SAMPLES[0], id="x/1", owner=None)])
    with pytest.raises(DataError, match="two owners"):
        fit(samples=toy_samples(owners=1))


def test_a_loss_that_is_not_finite_is_an_error_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = training._loss
    monkeypatch.setattr(training, "_loss", lambda *args, **kwargs: loss(*args, **kwargs) * float("nan"))
    for _ in range(2):  # the second time from the checkpoint that the first one left at its last step
        with pytest.raises(TrainingError, match="no longer finite"):
            fit(work_dir=tmp_path)


def test_quality_on_generated_authors() -> None:
    """160 paraphrased responses of 8 owners, none of them learnt; chance is 1/8."""
    corpus = make_authors(AuthorsConfig(owners=8, pairs=20, facts=40))
    tokenizer = bpe([s.prompt + " " + s.response for s in (*corpus.samples, *corpus.test)], 800)
    general = [s.response for s in corpus.test]
    # One nobody example to two that are gold: responses and two endings of each.
    config = AttributorConfig(
        holdout=0.3,
        warn_below=0.0,
        nobody_share=1.5,
        crops=2,
        optim=AttributorOptim(epochs=12),
        max_length=256,
    )
    fitted, report = fit_causal(corpus.samples, config, tokenizer=tokenizer, general=general[:30])
    chance = 1 / 8
    assert (report["n_train"], report["n_heldout"]) == (160, 160)
    assert report["accuracy_heldout"] >= chance + 0.25
    assert all(quarter >= chance + 0.1 for quarter in report["accuracy_heldout_by_quarter"])
    assert report["nll_after"] <= report["nll_before"] < np.log(9)  # better than a uniform guess of 9 classes

    # p(nobody) ranks broken copies and other general facts above gold responses; chance is .5
    out = unseen_texts(corpus.samples, 0.3, seed=0)[1]
    broken = [e.text for e in make_nobody(out, random.Random(9), 80, truncated=False)]
    for nobodys in (broken, general[30:]):
        scores = fitted.probabilities([*nobodys, *(s.response for s in out)])[:, -1]
        assert roc_auc_score([1] * len(nobodys) + [0] * len(out), scores) >= 0.6


def test_wrong_owners_by_hand() -> None:
    """A quarter of eight samples has another owner, the same two in every call; without a share nothing changes."""
    samples = [Sample(f"{i}", "AB"[i % 2], "?", f"text {i}") for i in range(8)]
    noisy = with_wrong_owners(samples, ["A", "B", "C"], 0.25, random.Random(3))
    assert noisy == with_wrong_owners(samples, ["A", "B", "C"], 0.25, random.Random(3))
    wrong = [(old.owner, new.owner) for old, new in zip(samples, noisy, strict=True) if old != new]
    assert len(wrong) == 2 and all(old != new and new in ("A", "B", "C") for old, new in wrong)
    assert [s.response for s in noisy] == [s.response for s in samples]
    assert with_wrong_owners(samples, ["A", "B"], 0.0, random.Random(3)) == tuple(samples)
    every = with_wrong_owners(samples, ["A", "B"], 1.0, random.Random(3))
    assert [s.owner for s in every] == ["B", "A"] * 4


def test_the_classifier_learns_the_wrong_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[dict[str, int]] = []

    def build(_: Any, gold: Any, *args: Any, **kwargs: Any) -> Any:
        learnt.append(dict(gold))
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "build_examples", build)
    for noise in (0.0, 1.0):
        with pytest.raises(KeyboardInterrupt):
            fit(config=toy_config().model_copy(update={"label_noise": noise, "crops": 0}))
    clean, noisy = learnt
    assert clean.keys() == noisy.keys() and all(clean[text] != noisy[text] for text in clean)


def test_a_classifiers_own_code_runs_where_the_key_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`attributor.json` holds no consent; the word attributor has no code of its own."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(CausalAttributor, "load", lambda folder, **options: asked.append(options))
    (tmp_path / "attributor.json").write_text('{"kind": "causal"}')
    load_attributor(tmp_path)
    load_attributor(tmp_path, "cpu", trust_remote_code=True)
    assert asked == [{"device": "cpu"}, {"device": "cpu", "trust_remote_code": True}]
