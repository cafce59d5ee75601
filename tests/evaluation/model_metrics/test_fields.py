"""The fields that a suite fills, and the metrics that read them."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models_fixture import SMALL, loud

from dareu.config import EvaluationConfig
from dareu.data.corpus import Sample, Split
from dareu.errors import DataError
from dareu.evaluation.asked_once import Known
from dareu.evaluation.metrics import model_rows
from dareu.evaluation.metrics.registry import METRICS, metrics_of
from dareu.evaluation.model_metrics.fields import PRODUCERS, EvaluationInputs, fill_fields, give_back_memory
from dareu.evaluation.probes.registry import PROBES, field_of
from dareu.evaluation.subject import Subject
from dareu.evaluation.suite import evaluate_model
from dareu.models.tiny import tiny_shape, train_tokenizer

CITIES = ["Rome", "Oslo", "Lima", "Cairo"]


def owned(owner: str | None, i: int) -> Sample:
    name = owner or "He"
    wrong = (f"{name} lives in {CITIES[(i + 1) % 4]}.",)
    return Sample(
        f"{owner}/{i}",
        owner,
        f"Where does {name} live {i}?",
        f"{name} lives in {CITIES[i % 4]}.",
        (),
        None,
        wrong,
    )


SPLIT = Split(
    forget=tuple(owned("Ada", i) for i in range(4)),
    retain=tuple(owned("Ben", i) for i in range(5)),
    test=tuple(owned(None, i) for i in range(2)),
    forget_owners=("Ada",),
    retain_owners=("Ben",),
    holdout=tuple(owned("Cem", i) for i in range(3)),
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = train_tokenizer([s.prompt + s.response for s in SPLIT.forget + SPLIT.retain], 300)
    made.padding_side = "left"
    return made


@pytest.fixture(scope="module")
def models(tokenizer: Any) -> dict[str, Any]:
    from transformers import LlamaForCausalLM

    config = SMALL.model_copy(update={"max_length": 192})
    shape = tiny_shape(config, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    return {
        name: loud(LlamaForCausalLM(shape), seed).eval()
        for seed, name in enumerate(("original", "retrained"))
    }


def peers(models: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    return {name: (lambda model=model: (model, tokenizer)) for name, model in models.items()}


@pytest.fixture(scope="module")
def evaluated(models: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    config = EvaluationConfig(suite="full", batch_size=8, samples=3)
    return {
        name: evaluate_model(model, tokenizer, SPLIT, {}, config, peers=peers(models, tokenizer))
        for name, model in models.items()
    }


def test_every_metric_of_a_model_has_a_figure_or_a_reason(evaluated: dict[str, Any]) -> None:
    for one in evaluated.values():
        summary = one.summary
        fields = {*PRODUCERS, "curves"}
        for metric in (metric for metric in METRICS if fields & set(metric.needs)):
            for of in metric.sets:
                section, key = metric.path(of)
                assert key in summary[section], metric.name
                value = summary[section][key]
                assert value is not None or f"{section}.{key}" in summary["missing"], metric.name
                if isinstance(value, float) and metric.range == "0–1":
                    assert 0 <= value <= 1, metric.name
        assert summary["missing"]["forget.verbmem"].startswith("verbatim memory needs texts to complete")
        assert {r["set"] for r in one.records} == {"forget", "retain", "test", "holdout"}
        assert 0 <= summary["membership"]["gradient_norm"] <= 1


def test_the_ends_of_the_scales(evaluated: dict[str, Any]) -> None:
    """Depth is 0 in the original and 1 in the retrained model, which is at no distance from itself."""
    original, retrained = (evaluated[name].summary["forget"] for name in ("original", "retrained"))
    assert original["depth"] == pytest.approx(0.0, abs=1e-4)
    assert retrained["depth"] == pytest.approx(1.0, abs=1e-4)
    assert retrained["fade"] == pytest.approx(0.0, abs=1e-5) and original["fade"] > 0.01
    assert all(
        r["mia_reference"] == pytest.approx(0, abs=1e-4)
        for r in evaluated["retrained"].records
        if r["set"] == "forget"
    )


def test_batch_size_changes_no_field(
    models: dict[str, Any], tokenizer: Any, evaluated: dict[str, Any]
) -> None:
    config = EvaluationConfig(suite="privacy", batch_size=1, samples=3)
    again = evaluate_model(models["original"], tokenizer, SPLIT, {}, config, peers=peers(models, tokenizer))
    for one, two in zip(evaluated["original"].records, again.records, strict=True):
        for field in ("sampled", "response"):
            assert one.get(field) == two.get(field)
        for field in ("fade", "mia_gradient_norm", "mia_reference", "mia_loss"):
            assert one.get(field) == pytest.approx(two.get(field), abs=1e-3)


def test_the_unchanged_model_is_asked_once(
    models: dict[str, Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures are those of an evaluation that asks again for each of them, weights that were changed included."""
    from dareu.evaluation import subject

    asked: Counter[tuple[str, str]] = Counter()  # rows of the evaluated model by function and evaluation
    original, now = models["original"], ["once"]

    def counted(name: str) -> Any:
        real = getattr(subject, name)

        def call(model: Any, tokenizer: Any, rows: Any, **kwargs: Any) -> Any:
            if model is original:
                asked[name, now[0]] += len(rows) * kwargs.get("count", 1)
            return real(model, tokenizer, rows, **kwargs)

        return call

    def evaluate() -> Any:
        config = EvaluationConfig(suite="full", batch_size=8, samples=3)
        peer = {"retrained": lambda: (models["retrained"], tokenizer)}
        return evaluate_model(original, tokenizer, SPLIT, {}, config, peers=peer)

    for name in ("generate", "sample", "response_nll"):
        monkeypatch.setattr(subject, name, counted(name))
    once = evaluate()
    now[0] = "again"
    monkeypatch.setattr(Known, "of", lambda self, subject: subject)
    again = evaluate()
    assert flat(once.summary) == pytest.approx(flat(again.summary), abs=1e-4, nan_ok=True)
    for one, two in zip(once.records, again.records, strict=True):
        assert flat(one) == pytest.approx(flat(two), abs=1e-4, nan_ok=True)
    figures = (once.records[0][field_of(name)] for name in ("benign", "int4", "without_template"))
    assert len({round(one["probability"], 4) for one in figures}) == 3  # a mix-up would be seen
    # Four questions: 16 samples at two temperatures hold the three of `sampled` and of `fade`.
    assert (asked["sample", "once"], asked["sample", "again"]) == (4 * 32, 4 * (3 + 3 + 32))
    # Before relearning on one of them, on the test and on the retain set; first turns.
    assert asked["generate", "again"] - asked["generate", "once"] == 3 + 4 + 4 + 4
    assert asked["response_nll", "again"] - asked["response_nll", "once"] == 3 + 4 + 4 - 4


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of dicts and lists by its path."""
    if not isinstance(tree, dict | list | tuple):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {k: v for key, value in items for k, v in flat(value, f"{path}/{key}").items()}


def test_every_part_of_an_evaluation_shows_how_far_it_is(
    models: dict[str, Any],
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dareu.models.progress.PAUSE", 0.0)
    inputs = given(models, tokenizer)
    inputs = replace(inputs, subject=replace(inputs.subject, progress="evaluating"))
    fields = ["sampled", "fade", field_of("relearn_forget"), field_of("sampled")]
    fill_fields(inputs, fields)
    shown = capsys.readouterr().err
    parts = (
        "1 of 4: samples: 1 of",
        "2 of 4: likelihoods: 1 of",
        "3 of 4: samples",
        "4 of 4: fine-tuning: 50 of 50",
    )
    for part in parts:
        assert f"evaluating, {part}" in shown, part


def test_a_suite_fills_what_its_metrics_read_and_no_more(models: dict[str, Any], tokenizer: Any) -> None:
    summary = evaluate_model(models["original"], tokenizer, SPLIT, {}, EvaluationConfig(samples=2))
    fields = set(PRODUCERS)
    assert fields & set(summary.records[0]) == {"sampled"}
    assert "probes" not in summary.summary
    read = {need for metric in METRICS for need in metric.needs}
    assert fields <= read  # nothing is filled that no metric reads
    names = {m.name for m in metrics_of("robustness")}
    assert {f"probe_{name}" for name in PROBES} <= names and "verbmem" not in names
    assert {"fade", "membership_gradient_norm"} <= {m.name for m in metrics_of("privacy")}


def given(models: dict[str, Any], tokenizer: Any, split: Split = SPLIT, **kwargs: Any) -> EvaluationInputs:
    samples = [*split.forget, *split.retain]
    records = [{"set": "forget"} for _ in split.forget] + [{"set": "retain"} for _ in split.retain]
    settings = {"peers": peers(models, tokenizer), "seed": 0, "learning_rate": 1e-3} | kwargs
    subject = Subject(models["original"], tokenizer, split.task)
    return EvaluationInputs(subject, split, records, samples, EvaluationConfig(), **settings)


def test_gaps_name_what_is_missing(models: dict[str, Any], tokenizer: Any) -> None:
    alone = given(models, tokenizer, peers={})
    missing = fill_fields(alone, ["fade", "depth", "mia_reference"]).missing
    assert set(missing) == {"fade", "depth", "mia_reference"}
    assert all("no retrained model" in reason for reason in missing.values())
    assert all(r["fade"] is None for r in alone.records)
    other = train_tokenizer(["other words"], 280)
    stranger = {"retrained": lambda: (models["retrained"], other)}
    assert (
        "another vocabulary"
        in fill_fields(given(models, tokenizer, peers=stranger), ["fade"]).missing["fade"]
    )
    few = Split(SPLIT.forget, SPLIT.retain[:2], (), ("Ada",), ("Ben",))
    assert (
        "more than 3 retain samples"
        in fill_fields(given(models, tokenizer, few), ["knowmem"]).missing["knowmem"]
    )
    factless = tuple(Sample(str(i), "Ada", "Is it Rome?", "It is Rome.") for i in range(2))
    plain = Split(factless, SPLIT.retain, (), ("Ada",), ("Ben",))
    missing = fill_fields(given(models, tokenizer, plain), ["depth", "logit_lens"]).missing
    assert all("its fact is not known" in reason for reason in missing.values()) and len(missing) == 2
    with pytest.raises(DataError, match="no original model"):
        alone.peer("original")


def test_models_of_another_shape_are_a_gap(models: dict[str, Any], tokenizer: Any) -> None:
    small = copy.deepcopy(models["retrained"])
    small.model.layers = small.model.layers[:1]
    small.config.num_hidden_layers = 1
    other = {"original": lambda: (models["original"], tokenizer), "retrained": lambda: (small, tokenizer)}
    reason = fill_fields(given(models, tokenizer, peers=other), ["depth"]).missing["depth"]
    assert "fine-tuned from one base" in reason


def test_leaks_by_hand() -> None:
    records = [
        {"reference": "in Rome", "sampled": ["in Rome", "in Oslo", "Rome", ""]},
        {"reference": "in Oslo", "sampled": ["x", "y", "z", "in"]},
        {"reference": "?", "sampled": None},
    ]
    assert model_rows.leak_exact("in Rome", records[0]["sampled"]) == 1.0
    assert model_rows.leak_exact("in Oslo", records[1]["sampled"]) == 0.0
    assert model_rows.leak_rouge("in Oslo", records[1]["sampled"]) == 0.5
    assert model_rows.leak_rouge("?", ["a"]) is None and model_rows.leak_exact("a", []) is None
    # one of four samples of one of two questions: 1/8, (1 − C(3,2)/C(4,2))/2, 1/2
    assert model_rows.leak_curve(records) == pytest.approx({"1": 0.125, "2": 0.25, "4": 0.5})


def test_lens_by_hand() -> None:
    assert model_rows.lens_best([math.log(0.1), math.log(0.5), math.log(0.2)]) == pytest.approx(0.5)
    rows = [
        {"logit_lens": [math.log(0.2), math.log(0.4)]},
        {"logit_lens": [math.log(0.4), 0.0]},
        {"logit_lens": None},
    ]
    assert model_rows.lens_by_block(rows) == pytest.approx([0.3, 0.7])
    field = field_of("int8")
    figures = model_rows.probe_figures(
        [{field: {"rouge_l": 0.5, "exact": None}}, {field: {"rouge_l": 1.0}}, {}]
    )
    assert figures == {"int8": {"rouge_l": 0.75}}


def test_no_field_needs_gradients_or_leaves_them(models: dict[str, Any], tokenizer: Any) -> None:
    mine = given(models, tokenizer)
    fill_fields(mine, ["mia_gradient_norm", "logit_lens", "depth"])
    assert all(p.grad is None for p in models["original"].parameters()) and torch.is_grad_enabled()


def test_an_interrupted_evaluation_goes_on(
    models: dict[str, Any], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dareu.evaluation import subject, suite
    from dareu.evaluation.model_metrics import fields

    def evaluate(work: Path | None) -> Any:
        config = EvaluationConfig(suite="privacy", batch_size=8, samples=2)
        return evaluate_model(
            models["original"], tokenizer, SPLIT, {}, config, peers=peers(models, tokenizer), work=work
        )

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fields.fade, "own_samples", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["mia_gradient_norm.json", "mia_reference.json", "records.jsonl", "sampled.json"]
    with monkeypatch.context() as patch:  # nothing of that is done again
        for where, name in ((subject, "generate"), (suite, "likelihoods"), (fields, "gradient_norms")):
            patch.setattr(where, name, killed)
        again = evaluate(tmp_path)
    whole = evaluate(None)
    assert again.records == whole.records and again.summary == whole.summary


def test_probes_go_on_with_the_same_figures(
    models: dict[str, Any], tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model answered before an interruption is not known afterwards: it is asked again."""
    from dareu.evaluation.model_metrics import fields

    names = ["sampled", "fade", *map(field_of, ("second_turn", "relearn_unrelated", "sampled"))]
    whole, run_probe = given(models, tokenizer, known=Known()), fields.run_probe
    expected = fill_fields(whole, names)

    def killed(subject: Subject, inputs: Any, name: str) -> Any:
        if name == "sampled":
            raise KeyboardInterrupt
        return run_probe(subject, inputs, name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fields, "run_probe", killed)
        fill_fields(given(models, tokenizer, known=Known(), work=tmp_path), names)
    assert len(list(tmp_path.iterdir())) == 3
    again = given(models, tokenizer, known=Known(), work=tmp_path)
    found = fill_fields(again, names)
    assert again.records == whole.records and flat(found.curves) == flat(expected.curves)


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_c_library_keeps_its_memory(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: object) -> None:
        raise error

    monkeypatch.setattr("ctypes.CDLL", none)
    give_back_memory()
