"""Command lines with a mistake, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixture import MODEL, SMALL, folk, write_lines

COLUMNS = ["data.columns.prompt=question", "data.columns.response=answer", "data.columns.owner=person"]
Case = Callable[[Path], list[str]]


def local(write: Callable[[Path], Any], *overrides: str) -> Case:
    """The user's own file, as `write` makes it."""

    def case(folder: Path) -> list[str]:
        write(folder / "mine.jsonl")
        return ["data=local", f"data.path={folder / 'mine.jsonl'}", *COLUMNS, *MODEL, *overrides]

    return case


def small(*overrides: str) -> Case:
    return lambda folder: [*SMALL, *overrides]


def people(**changes: Any) -> Callable[[Path], Any]:
    return lambda path: write_lines(path, [row | changes for row in folk()])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says, which is one message: a line of cause, and one of cure; before it whose data goes."""
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if not line.startswith("To forget: ")]
    assert lines[0].startswith("dareu: ") and len(lines) == 2 and lines[1].startswith("       "), err
    return err
