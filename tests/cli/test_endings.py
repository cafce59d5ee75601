"""How a command ends: by a signal, and on a terminal that knows few signs; what it warns of before the end."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.table import Table

from dareu.cli import commands
from dareu.workflow.console import Console, SafeConsole
from dareu.workflow.experiment import Run


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_is_answered_with_a_word_and_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int, said: str
) -> None:
    released = []

    def work(args: Any) -> int:
        try:
            os.kill(os.getpid(), number)
            return 0
        finally:
            released.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(commands.COMMANDS, "store", work)
    assert commands.main(["store", "verify"]) == code
    assert capsys.readouterr().err == f"dareu: {said}; the same command continues from here.\n"
    assert released and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_table_on_a_terminal_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))

    def show(args: Any) -> int:
        table = Table(title="東京 ✓")
        table.add_row("Zoë – “x”")
        SafeConsole(width=60).print(table)
        print("नमस्ते")
        return 0

    monkeypatch.setitem(commands.COMMANDS, "store", show)
    assert commands.main(["store", "verify"]) == 0
    sys.stdout.flush()
    assert "\\u6771" in raw.getvalue().decode(encoding) and "\\u0928" in raw.getvalue().decode(encoding)


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
