"""`method.evaluate_every` through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_fixture import LOSS, SMALL, store, train

from dareu.config.compose import compose
from dareu.errors import ConfigError
from dareu.runs.files import read_json
from dareu.workflow.experiment import planned

__all__ = ["store"]


def test_the_best_weights_are_kept_and_said(store: Path, tmp_path: Path) -> None:
    many = [
        "method=gradient_ascent",
        "method.optim.steps=6",
        "method.optim.lr=0.03",
        "evaluation.part=report",
    ]
    run = train(store, tmp_path / "run", *many, "method.evaluate_every=2")
    best = run["outcome"]["best"]
    assert [row["step"] for row in best["evaluations"]] == [2, 4, 6, 6]
    top = max(row["score"] for row in best["evaluations"])
    assert best["score"] == top and all(0 <= row["score"] <= 1 for row in best["evaluations"])
    assert read_json(tmp_path / "run" / "results.json")["outcome"]["best"] == best
    last = train(store, tmp_path / "last", *many)
    assert "best" not in last["outcome"]
    moved = best["step"] < 6
    assert (run["models"]["unlearned"] != last["models"]["unlearned"]) == moved


def test_weights_are_not_chosen_on_what_is_reported() -> None:
    with pytest.raises(ConfigError, match="evaluation.part=report"):
        compose([*SMALL, "method.evaluate_every=2"])
    compose([*SMALL, "method.evaluate_every=2", "evaluation.part=report"])


def test_the_choice_is_part_of_the_content_key(tmp_path: Path) -> None:
    def key(*more: str) -> str:
        config = compose(
            [*SMALL, *LOSS, "method=npo", f"cache_dir={tmp_path}", "evaluation.part=report", *more]
        )
        return next(s["key"] for s in planned(config)["stages"] if s["stage"].startswith("unlearned"))

    assert len({key(), key("method.evaluate_every=2"), key("method.evaluate_every=2", "retrain=false")}) == 3
    assert key() == key("evaluation.validation_share=0.3")
    assert key("method.evaluate_every=2") != key("method.evaluate_every=2", "evaluation.validation_share=0.3")
