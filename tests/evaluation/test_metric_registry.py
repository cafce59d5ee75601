"""One registry: its rows compute, their gaps have reasons, and a row of another package is a row like ours."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from dareu.config.tables import read_table
from dareu.evaluation.metrics import registry as module
from dareu.evaluation.metrics import rouge
from dareu.evaluation.metrics.base import INPUTS, SUITES, Metric
from dareu.evaluation.metrics.compute import compute_metrics, sample_values
from dareu.evaluation.metrics.registry import METRICS, metrics_of, registry
from dareu.evaluation.metrics.table import page


def record(of: str, response: str, **more: Any) -> dict[str, Any]:
    return {"set": of, "reference": "in the old town", "response": response, "finished": True, **more}


def rows() -> list[dict[str, Any]]:
    return [record("forget", "in town"), record("forget", "in the old town"), record("retain", "nowhere")]


def test_each_row_is_complete_and_named_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.title and metric.note and metric.range and metric.needs, metric.name
        assert set(metric.suites) <= set(SUITES), metric.name
        assert metric.better in ("as retrained", "higher", "lower"), metric.name
    paths = [metric.path("forget") for metric in METRICS if metric.level in ("sample", "set")]
    assert len(paths) == len(set(paths))


def test_the_recipe_of_contributing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric is one function and one row: those of CONTRIBUTING.md."""
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = text.split("\n## A metric\n")[1].split("\n## ")[0]
    code, row = recipe.split("```python\n")[1].split("```")[0], recipe.split("```yaml\n")[1].split("```")[0]
    made: dict[str, Any] = {}
    exec(code, made)
    monkeypatch.setattr(rouge, "starts_alike", made["starts_alike"], raising=False)
    ((name, fields),) = yaml.safe_load(row).items()
    monkeypatch.setattr(module, "METRICS", (*METRICS, module.from_table(name, fields)))
    records = rows()
    summary = compute_metrics(records, metrics_of("fast"))
    assert summary["forget"]["starts_alike"] == 1.0 and summary["retain"]["starts_alike"] == 0.0
    assert [r["starts_alike"] for r in records] == [1.0, 1.0, 0.0]
    assert summary["intervals"]["forget"]["starts_alike"] == {
        "low": None,
        "high": None,
        "n": 2,
        "reason": "no interval from fewer than 6 samples",
    }
    assert "forget.starts_alike" not in summary["missing"]


def test_every_row_names_a_function_that_is_there() -> None:
    paths = []
    for table in ("metrics", "probes"):
        rows = read_table(f"dareu.evaluation.{table}", f"{table}.yaml").values()
        paths += [
            f"probes.{row['run']}" if "run" in row else row.get("each", row.get("compute")) for row in rows
        ]
        paths += [row["contribution"] for row in rows if "contribution" in row]
    for path in filter(None, paths):
        module_name, _, name = path.partition(":")
        assert callable(getattr(import_module(f"dareu.evaluation.{module_name}"), name)), path
    assert len(paths) > 50


def test_a_row_of_another_package_is_computed_like_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Metric("shout", lambda records: [r["response"].isupper() * 1.0 for r in records], ("response",))

    class Point:
        name = "shout"

        def load(self) -> Metric:
            return row

    monkeypatch.setattr(
        "dareu.config.plugins.entry_points", lambda group: [Point()] if group == "dareu.metrics" else []
    )
    assert registry()["shout"] is row
    summary = compute_metrics(rows(), metrics_of("fast"))
    assert summary["forget"]["shout"] == 0.0 and summary["extra"] == {}


def test_what_lacks_its_needs_is_a_gap_with_a_reason() -> None:
    metric = Metric(
        "wants", lambda records, holdout: [0.0 for _ in records], needs=("nll", "holdout"), gap="no NLL"
    )
    summary = compute_metrics(rows(), [metric], {"holdout": [1]})
    assert summary["forget"]["wants"] is None
    assert summary["missing"]["forget.wants"] == "the records do not hold `nll`"
    without = [{**r, "nll": None} for r in rows()]
    assert (
        compute_metrics(without, [metric], {"holdout": [1]})["missing"]["forget.wants"]
        == "2 of 2 samples: no NLL"
    )
    with_nll = [{**r, "nll": 1.0} for r in rows()]
    assert compute_metrics(with_nll, [metric])["missing"]["forget.wants"] == INPUTS["holdout"]
    assert compute_metrics(with_nll, [metric], {"holdout": [1]})["forget"]["wants"] == 0.0


def test_some_samples_without_a_value_are_said_and_left_out_of_the_mean() -> None:
    metric = Metric("half", lambda records: [None, 0.5][: len(records)], needs=("response",), gap="it is odd")
    summary = compute_metrics(rows()[:2], [metric])
    assert summary["forget"]["half"] == 0.5
    assert summary["missing"]["forget.half"] == "1 of 2 samples: it is odd"


def test_values_that_stand_in_the_records_are_read_and_not_computed_again() -> None:
    metric = Metric("seen", lambda records: pytest.fail("computed"), needs=("response",))
    assert sample_values(metric, [record("forget", "x", seen=0.25)]) == [0.25]
    assert sample_values(metric, []) is None


def test_the_page_of_metrics_is_that_of_the_registry() -> None:
    written = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == page(), "python -m dareu.evaluation.metrics.table > docs/metrics.md"


@pytest.mark.parametrize("suite", SUITES)
def test_fast_is_part_of_every_suite(suite: str) -> None:
    names = {metric.name for metric in metrics_of(suite)}
    assert {metric.name for metric in metrics_of("fast")} <= names
    assert names <= {metric.name for metric in metrics_of("full")}
