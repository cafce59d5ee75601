"""The suite on a model of some thousand parameters, most of its answers known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dareu.config import EvaluationConfig, TinyConfig
from dareu.data.corpus import Sample, Split
from dareu.errors import DataError
from dareu.evaluation import subject, suite
from dareu.evaluation.metrics import registry
from dareu.evaluation.suite import Evaluation, evaluate_model
from dareu.models.generate import Generation
from dareu.models.load import load_model
from dareu.models.tiny import make_tiny

OWNERS = ["Ada", "Ben", "Cem", "Dov"]
CONFIG = EvaluationConfig(batch_size=8)


def sample(owner: str | None, i: int, wrong: bool = True) -> Sample:
    city = ["Rome", "Oslo", "a village by the sea", "Lima"][i % 4]
    return Sample(
        id=f"{owner}/{i}",
        owner=owner,
        prompt=f"Where does {owner or 'the king'} live{' now' * (i % 3)}?",
        response=f"{owner or 'He'} lives in {city}.",
        paraphrased_response=f"In {city}." if i % 2 else None,
        wrong_responses=("In Cairo.", "She lives in a far away place.") if wrong else (),
    )


def make_split(test: int = 3, wrong: bool = True) -> Split:
    by_owner = {o: tuple(sample(o, i, wrong) for i in range(4)) for o in OWNERS}
    return Split(
        forget=by_owner["Ada"] + by_owner["Cem"],
        retain=by_owner["Ben"] + by_owner["Dov"],
        test=tuple(sample(None, i, wrong) for i in range(test)),
        forget_owners=("Ada", "Cem"),
        retain_owners=("Ben", "Dov"),
    )


class ByName:
    """.95 for the first owner whose name the text holds, the rest in equal parts; no empty text allowed."""

    def __init__(self, nobody: bool = True) -> None:
        self.owners, self.nobody = OWNERS, nobody

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        assert all(texts)
        classes = len(OWNERS) + self.nobody
        rows = np.full((len(texts), classes), 0.05 / (classes - 1))
        for row, text in zip(rows, texts, strict=True):
            row[next((i for i, owner in enumerate(OWNERS) if owner in text), classes - 1)] = 0.95
        return rows

    def prefix_probabilities(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        raise AssertionError("the suite scores whole answers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tiny")
    config = TinyConfig(
        hidden_size=16, intermediate_size=32, layers=1, heads=2, vocab_size=280, max_length=96
    )
    split = make_split()
    texts = [s.prompt + " " + s.response for s in split.forget + split.retain + split.test]
    make_tiny(config, texts, seed=0, folder=path)
    return path


@pytest.fixture
def tiny(folder: Path) -> tuple[Any, Any]:
    return load_model(folder)


@pytest.fixture
def uniform_model(tiny: tuple[Any, Any]) -> tuple[Any, Any]:
    """Every weight 0: every token is equally likely, and the greedy one is the pad token, for ever."""
    model, tokenizer = tiny
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model, tokenizer


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], tuple[str, bool]]) -> None:
    """Generation that gives `answer(i)` for the i-th prompt."""

    def generate(model: Any, tokenizer: Any, prompts: Sequence[str], **_: Any) -> list[Generation]:
        return [Generation(text, [], done) for text, done in map(answer, range(len(prompts)))]

    monkeypatch.setattr(subject, "generate", generate)


def run(parts: tuple[Any, Any], split: Split, config: EvaluationConfig = CONFIG, **kwargs: Any) -> Evaluation:
    both = {"attribution": ByName(), "attribution_heldout": ByName(nobody=False)}
    attributors = kwargs.pop("attributors", both)
    return evaluate_model(*parts, split, attributors, config, seed=1, device="cpu", progress=None, **kwargs)


def test_uniform_model(uniform_model: tuple[Any, Any]) -> None:
    summary = run(uniform_model, make_split()).summary
    one_token = pytest.approx(1 / len(uniform_model[1]), rel=1e-4)
    for name, ratio in (("forget", 1.0), ("retain", 0.0), ("test", 0.0)):  # R = 1: min(R, 1/R), max(0, 1 − R)
        assert summary[name]["rouge_l"] == 0.0
        assert summary[name]["probability"] == one_token
        assert summary[name]["truth_ratio"] == pytest.approx(ratio, abs=1e-4)
    # blank answers are no evidence: two forget owners of five and of four classes
    assert summary["forget"]["attribution"] == pytest.approx(2 / 5)
    assert summary["forget"]["attribution_heldout"] == pytest.approx(2 / 4)
    assert summary["forget"]["reattribution"] == summary["forget"]["reattribution_heldout"] == 0.0
    broken = {"empty": 1.0, "unfinished": 1.0, "repetitive": 0.0, "distinct_2": 0.0, "mean_length": 0.0}
    assert summary["text_health"] == summary["text_health_retain"] == broken
    assert summary["truth_ratios"] == pytest.approx([1.0] * 8, abs=1e-4)
    assert summary["missing"] == {}
    json.dumps(summary, allow_nan=False)


def test_known_answers(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    split = make_split()
    gold = [s.response for s in split.forget + split.retain + split.test]
    # forget samples 0–3 ask about Ada, 4–7 about Cem; four answer with gold, then Ben twice, Ada, nothing
    given = gold[:4] + ["Ben Ben Ben"] * 2 + ["Ada swims"] + [""] + gold[8:]
    answer_with(monkeypatch, lambda i: (given[i], i != 7))
    result = run(tiny, split)
    forget, health = result.summary["forget"], result.summary["text_health"]
    assert [r["response"] for r in result.records] == given
    assert forget["rouge_l"] == pytest.approx(4 / 8)  # of "Cem lives in …" the last four say nothing
    # both forget owners for an answer by one of them: .95 + .0125; by Ben: 2 · .0125; blank: 2/5
    assert forget["attribution"] == pytest.approx((5 * 0.9625 + 2 * 0.025 + 0.4) / 8)
    assert forget["reattribution"] == pytest.approx(3 / 8)  # Ben, Ben, and Ada when asked about Cem
    strict = run(tiny, split, CONFIG.model_copy(update={"reattribution_threshold": 0.96}))
    assert strict.summary["forget"]["reattribution"] == 0.0
    assert (health["empty"], health["unfinished"], health["repetitive"]) == (1 / 8, 1 / 8, 2 / 8)
    assert result.summary["retain"]["rouge_l"] == result.summary["test"]["rouge_l"] == 1.0
    assert result.summary["text_health_retain"]["unfinished"] == 0.0
    assert [r["attribution"] is None for r in result.records] == [False] * 8 + [True] * 11


def test_likelihoods_are_those_of_the_model(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    split = make_split()
    result = run(tiny, split)

    def likely(prompt: str, response: str) -> float:
        before = tokenizer(f"<|user|>{prompt}<|assistant|>", add_special_tokens=False)["input_ids"]
        after = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logps = model(torch.tensor([before + after])).logits[0].log_softmax(-1)
        token_logps = [logps[len(before) - 1 + k, token] for k, token in enumerate(after)]
        return float(torch.stack(token_logps).mean().exp())

    for record, chosen in zip(result.records, split.forget + split.retain + split.test, strict=True):
        assert record["probability"] == pytest.approx(likely(chosen.prompt, chosen.response), rel=1e-4)
        wrong = np.exp(np.mean(np.log([likely(chosen.prompt, w) for w in chosen.wrong_responses])))
        right = likely(chosen.prompt, chosen.paraphrased_response or chosen.response)
        assert record["truth_ratio"] == pytest.approx(wrong / right, rel=1e-4)


def test_batch_size_changes_nothing_and_order_is_kept(tiny: tuple[Any, Any]) -> None:
    split = make_split()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in tiny[0].parameters():
            parameter.normal_(0, 0.5)  # an untrained model echoes its last token
    one, eight = (run(tiny, split, EvaluationConfig(batch_size=b, max_new_tokens=12)) for b in (1, 8))
    assert [(r["set"], r["index"], r["id"]) for r in eight.records] == [
        (name, i, s.id)
        for name, samples in (("forget", split.forget), ("retain", split.retain), ("test", split.test))
        for i, s in enumerate(samples)
    ]
    assert len({r["response"] for r in one.records}) > 9  # the prompts are told apart
    for a, b in zip(one.records, eight.records, strict=True):
        assert a["response"] == b["response"]
        assert a["probability"] == pytest.approx(b["probability"], rel=1e-4)
    for part in ("forget", "retain", "test", "text_health", "text_health_retain"):
        assert one.summary[part] == pytest.approx(eight.summary[part], rel=1e-4)


def test_every_figure_is_described(tiny: tuple[Any, Any]) -> None:
    summary = run(tiny, make_split()).summary
    parts = ("forget", "retain", "test", "text_health", "text_health_retain")
    known = {metric.key for metric in registry.registry().values()}
    assert {key for part in parts for key in summary[part]} - {"n"} <= known


def test_what_cannot_be_computed_is_none_with_a_reason(tiny: tuple[Any, Any]) -> None:
    result = run(tiny, make_split(test=0, wrong=False), attributors={"attribution": ByName()})
    summary, missing = result.summary, result.summary["missing"]
    assert summary["test"].pop("n") == 0 and set(summary["test"].values()) == {None}
    assert {"rouge_l", "exact", "probability", "truth_ratio"} <= set(summary["test"])
    assert summary["forget"]["truth_ratio"] is None and summary["truth_ratios"] == []
    assert summary["forget"]["attribution_heldout"] is None and summary["forget"]["attribution"] is not None
    assert {name for name in missing if not name.startswith("membership.")} == {
        "test",
        "forget.truth_ratio",
        "forget.truth_ratio_log",
        "retain.truth_ratio",
        "forget.attribution_heldout",
        "forget.reattribution_heldout",
    }


def test_a_model_that_fell_apart_is_said(tiny: tuple[Any, Any]) -> None:
    with torch.no_grad():
        tiny[0].model.norm.weight.fill_(float("nan"))
    summary = run(tiny, make_split()).summary
    assert summary["forget"]["probability"] is None and summary["retain"]["truth_ratio"] is None
    assert summary["missing"]["forget.probability"].startswith("8 of 8 samples")
    json.dumps(summary, allow_nan=False)


def test_without_likelihoods_the_other_figures_are_the_same(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny, make_split(), CONFIG)
    monkeypatch.setattr(suite, "likelihoods", None)  # not called
    short = run(tiny, make_split(), CONFIG.model_copy(update={"likelihoods": False}))
    assert [r["response"] for r in short.records] == [r["response"] for r in whole.records]
    for name in ("forget", "retain", "test"):
        assert short.summary[name]["probability"] is short.summary[name]["truth_ratio"] is None
        assert whole.summary[name]["probability"] is not None
        assert "evaluation.likelihoods=false" in short.summary["missing"][f"{name}.probability"]
        assert short.summary[name]["rouge_l"] == whole.summary[name]["rouge_l"]


def test_retain_limit(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, lambda i: ("x", True))
    config = CONFIG.model_copy(update={"retain_limit": 3})

    def kept(seed: int) -> list[int]:
        records = evaluate_model(*tiny, make_split(), {}, config, seed=seed).records
        return [r["index"] for r in records if r["set"] == "retain"]

    assert kept(1) == kept(1) == sorted(kept(1)) and len(kept(1)) == 3
    assert len({tuple(kept(seed)) for seed in range(8)}) > 1
    assert len(run(tiny, make_split(), CONFIG.model_copy(update={"retain_limit": 99})).records) == 19


def test_wrong_answers_too_long_for_the_context_cost_the_truth_ratio_alone(tiny: tuple[Any, Any]) -> None:
    split = make_split()
    long = Sample("Ada/9", "Ada", "Who?", "Ada.", wrong_responses=("word " * 200,))
    grown = Split((*split.forget, long), split.retain, split.test, split.forget_owners, split.retain_owners)
    summary = run(tiny, grown).summary
    assert summary["missing"]["forget.truth_ratio"].startswith("1 of 9 samples")
    assert len(summary["truth_ratios"]) == 8 and summary["forget"]["n"] == 9


def test_unknown_forget_owner_stops_before_the_work(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, lambda i: pytest.fail("generated before the check"))
    split = make_split()
    unknown = Split(split.forget, split.retain, split.test, ("Eve",), split.retain_owners)
    with pytest.raises(DataError, match="Eve"):
        run(tiny, unknown)


def test_metrics_of_other_packages(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        def __init__(self, name: str, metric: Any) -> None:
            self.name, self.load = name, lambda: metric

    points = [
        Point("count", lambda records: {"forget": sum(r["set"] == "forget" for r in records)}),
        Point("bad", lambda records: records[0]["no such key"]),
    ]
    monkeypatch.setattr(
        "dareu.config.plugins.entry_points", lambda group: points if group == "dareu.metrics" else []
    )
    summary = run(tiny, make_split()).summary
    assert summary["extra"] == {"count": {"forget": 8}, "bad": None}
    assert summary["missing"] == {"extra.bad": "KeyError: 'no such key'"}


# --- the holdout ------------------------------------------------------------------------------------------------


def test_holdout_rows_are_scored_and_not_answered(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Membership attacks read their likelihoods; an answer to them would be written and never read."""
    asked: list[str] = []
    generate = subject.generate

    def noting(model: Any, tokenizer: Any, prompts: Sequence[str], **kwargs: Any) -> list[Generation]:
        asked.extend(prompts)
        return generate(model, tokenizer, prompts, **kwargs)

    monkeypatch.setattr(subject, "generate", noting)
    split = replace(make_split(), holdout=tuple(sample("Eve", i) for i in range(5)))
    found = run(tiny, split)
    held = [r for r in found.records if r["set"] == "holdout"]
    assert len(asked) == len(split.forget + split.retain + split.test) and not any("Eve" in q for q in asked)
    assert [(r["response"], r["finished"]) for r in held] == [(None, None)] * 5
    assert all(r["mia_loss"] is not None for r in held)
    assert 0 <= found.summary["membership"]["loss"] <= 1
