"""The table of what a step costs: medians, ratios, and the passes of a formula. No times are tested."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dareu.config import LossMethodConfig
from dareu.config.compose import compose, options

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import bench_steps as bench  # noqa: E402


def test_table_of_medians_and_ratios() -> None:
    costs = [
        bench.Cost("even", "forget", [0.115, 9.0, 0.001], [0.1, 0.1, 8.0]),  # medians .115 and .1
        bench.Cost("dear", "forget, retain", [0.3], [0.2]),
    ]
    lines = bench.steps_table(costs).splitlines()
    assert lines[2] == "| even | forget | 115.0 | 100.0 | 1.15 |"
    assert lines[3] == "| dear | forget, retain | 300.0 | 200.0 | 1.50 |"


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        ("finetune", [("forget", True)]),  # the rows that it walks through
        ("gradient_ascent", [("forget", True)]),
        ("grad_diff", [("forget", True), ("retain", True)]),
        ("npo", [("forget", True), ("forget", False), ("retain", True)]),
        ("pdu", [("forget", True), ("retain", True)]),
        ("rmu", [("forget", True), ("retain", True), ("retain", False)]),
    ],
)
def test_passes_that_a_formula_needs(method: str, passes: list[tuple[str, bool]]) -> None:
    config: Any = compose([f"method={method}"]).method
    assert bench.needed(config) == passes
    with_kl = config.model_copy(update={"retain": "kl"})
    assert bench.needed(with_kl)[-2:] == [("retain", True), ("retain", False)]


def test_every_loss_has_its_passes() -> None:
    methods = [compose([f"method={name}"]).method for name in options()["method"]]
    for method in (m for m in methods if isinstance(m, LossMethodConfig)):
        assert any(gradient for _, gradient in bench.needed(method)), method.name


def test_an_alternating_method_needs_the_passes_of_one_kind_at_a_time() -> None:
    method: Any = compose(["method=scrub"]).method
    data: Any = {"forget": [0] * 40, "retain": [0] * 360}
    plan = bench._alternating(method, {"forget": 20, "retain": 40}, data)
    up, down = [("forget", True), ("forget", False)], [("retain", True), ("retain", False)]
    assert [plan(s) for s in range(12)] == [up] * 2 + [down] * 9 + [up]
    still = method.model_copy(update={"params": method.params | {"alpha": 0.0}})
    assert bench._alternating(still, {"forget": 20, "retain": 40}, data)(5) == [("retain", True)]


def test_both_sides_are_measured_in_turn_and_written(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("<!-- begin:steps -->\n<!-- end:steps -->\n")
    small = [
        "data.version=1",
        "data.owners=4",
        "data.pairs=4",
        "forget.count=1",
        "model.hidden_size=16",
        "model.intermediate_size=16",
        "model.pretrain=null",
    ]
    assert (
        bench.main(
            ["--steps", "2", "--methods", "scrub", "npo", "--results", str(page), "--overrides", *small]
        )
        == 0
    )
    text = page.read_text()
    assert "| scrub | forget, forget of the reference, retain, retain of the reference |" in text
    assert "| npo | forget, forget of the reference, retain |" in text


def test_methods_that_are_no_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--methods", "dareu"]) == 2
    assert "None of these methods is a loss" in capsys.readouterr().err
