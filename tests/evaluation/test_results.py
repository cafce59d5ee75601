"""Results as a type: old and new files, figures as a table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from report_fixture import make_results, write_run

import dareu
from dareu.errors import RunError
from dareu.evaluation.results import SCHEMA_VERSION, Results

DAMAGE = {"value": 0.25, "original": {"value": 0.125}, "beyond_original": {"value": 0.125}}


def test_a_file_of_before_the_schema_version_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "old")
    results = Results.read(folder)
    assert results.schema_version == 1
    assert results.models["unlearned"].forget["rouge_l"] == 0.558
    assert results.tree() == json.loads((folder / "results.json").read_text())


def test_what_is_written_is_read_the_same_and_names_its_version(tmp_path: Path) -> None:
    tree = make_results() | {
        "knowledge_left": {"rouge_l": {"value": 0.4, "low": 0.3, "high": 0.5}},
        "knowledge_left_worst": {"metric": "rouge_l", "value": 0.4},
        "damage": {"retain": {"value": 0.05, "n": 360}},
        "of_a_later_version": [1, 2],
    }
    Results.of(tree).write(tmp_path / "results.json")
    results = Results.read(tmp_path)
    assert results.tree() == tree | {"schema_version": SCHEMA_VERSION}
    assert results.knowledge_left["rouge_l"].high == 0.5
    assert results.knowledge_left_worst is not None and results.knowledge_left_worst.metric == "rouge_l"
    assert results.damage["retain"].n == 360


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ["original"]}, "models"),
        ({"tug_of_war": "high"}, "tug_of_war"),
        ({"schema_version": 99}, "schema version 99"),
    ],
)
def test_what_is_no_result_is_refused_by_name(tmp_path: Path, change: dict[str, object], said: str) -> None:
    (tmp_path / "results.json").write_text(json.dumps(make_results() | change))
    with pytest.raises(RunError) as caught:
        Results.read(tmp_path)
    assert said in caught.value.cause and caught.value.cure


def test_frame(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "deeper" / "b", make_results("npo", 42, damage={"retain": DAMAGE}))
    frame = dareu.results_frame(tmp_path / "a", tmp_path / "deeper")
    assert list(frame["model"]) == ["original", "retrained", "unlearned"] * 2
    assert list(frame["method"]) == ["dareu"] * 3 + ["npo"] * 3
    last = frame.iloc[5]
    assert (last["seed"], last["forget.rouge_l"], last["text_health.distinct_2"]) == (42, 0.558, 0.71)
    assert (last["tug_of_war"], last["damage.retain"], last["seconds.unlearn"]) == (0.971, 0.25, 4.0)
    assert (last["damage.retain.original"], last["damage.retain.beyond_original"]) == (0.125, 0.125)
    assert math.isnan(frame.iloc[3]["tug_of_war"]) and math.isnan(frame.iloc[2]["damage.retain"])
    with pytest.raises(RunError, match="holds no results.json"):
        dareu.results_frame(tmp_path / "nothing")
