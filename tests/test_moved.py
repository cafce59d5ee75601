"""Old import paths give what is elsewhere now."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
from pipeline_fixture import SMALL

from dareu.config.compose import compose
from dareu.moved import MOVED, Bench
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_names_of_the_new_ones(old: str) -> None:
    with pytest.deprecated_call(match=f"{old} is now {MOVED[old][0]}"):
        module = import_module(old)
    for place in MOVED[old]:
        new = vars(import_module(place))
        assert all(getattr(module, name) is new[name] for name in new if not name.startswith("_"))


def test_the_place_that_is_named_is_where_the_code_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dareu.pipeline.bench", raising=False)
    assert not any("dareu.moved" in places for places in MOVED.values())
    with pytest.deprecated_call(match="is now dareu.workflow.prepare and dareu.workflow.stages"):
        assert import_module("dareu.pipeline.bench").Bench is Bench


def test_a_bench_has_the_context_of_a_run_and_its_stages(tmp_path: Path) -> None:
    config = compose([*SMALL, f"cache_dir={tmp_path}"])
    bench = Bench(config)
    assert len(bench.split.forget) == 4
    assert bench.original_key == Stages(prepare(config)).original.key()
