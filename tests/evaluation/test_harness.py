"""lm-evaluation-harness as an extra: what is handed over, what comes back, what is said where it is missing."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dareu.errors import ConfigError, DataError
from dareu.evaluation import harness


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for the harness; what it was called with."""
    called: dict[str, Any] = {}

    def simple_evaluate(**kwargs: Any) -> dict[str, Any]:
        called.update(kwargs)
        if "no_such_task" in kwargs["tasks"]:
            raise KeyError("no_such_task\nand more")
        figures = {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc,strict": 1, "sample_len": 4}
        return {"results": {"arc_easy": figures}}

    class HFLM:
        def __init__(self, **kwargs: Any) -> None:
            self.given = kwargs

    package, models, huggingface = (
        ModuleType(n) for n in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface")
    )
    package.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    huggingface.HFLM = HFLM  # type: ignore[attr-defined]
    for module in (package, models, huggingface):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(harness, "find_spec", lambda name: object())
    return called


class Model(SimpleNamespace):
    training = True

    def eval(self) -> Any:
        self.training = False
        return self

    def train(self, mode: bool) -> None:
        self.training = mode


def test_figures_by_task(installed: dict[str, Any]) -> None:
    model = Model()
    figures = harness.harness_figures(model, "tokenizer", ["arc_easy"], batch_size=4, seed=3)
    assert figures == {"arc_easy": {"acc": 0.5, "acc_stderr": 0.1, "acc_strict": 1.0, "sample_len": 4.0}}
    assert installed["tasks"] == ["arc_easy"] and installed["fewshot_random_seed"] == 3
    assert installed["model"].given == {"pretrained": model, "tokenizer": "tokenizer", "batch_size": 4}
    assert model.training  # as it was before
    with pytest.raises(DataError, match="could not run no_such_task .*lm_eval ls tasks"):
        harness.harness_figures(model, "tokenizer", ["no_such_task"], batch_size=4)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    harness.check_harness([])
    assert harness.harness_figures(None, None, [], batch_size=1) == {}
    with pytest.raises(ConfigError, match=r"dareu\[lm_eval\]"):
        harness.check_harness(["arc_easy"])
