"""What a run warns of once the original model is there."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from dareu.workflow.console import Console, SafeConsole
from dareu.workflow.experiment import Run


@pytest.mark.parametrize(("rouge", "warned"), [(0.65, True), (0.8, False), (1.0, False), (None, False)])
def test_an_original_model_that_has_not_learnt_its_data(rouge: float | None, warned: bool) -> None:
    out = io.StringIO()
    evaluated = SimpleNamespace(summary={"forget": {"rouge_l": rouge}})
    stages: Any = SimpleNamespace(
        original=None,
        context=SimpleNamespace(console=Console(screen=SafeConsole(file=out, width=200))),
        evaluation=lambda model, which: SimpleNamespace(read=lambda: evaluated),
    )
    Run(stages, [], model=stages, method="npo").check_original()
    assert ("has not learnt its data: ROUGE-L 0.65" in out.getvalue()) == warned
