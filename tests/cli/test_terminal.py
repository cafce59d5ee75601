"""Text of the data is shown on the terminal and does not act on it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table

from dareu.cli import commands
from dareu.cli.commands import main
from dareu.cli.output import show_scores
from dareu.errors import DataError, printable
from dareu.workflow.console import Console, SafeConsole

EVIL = "Bo \x1b[31mMarsh\x9b2J\x07 \u202eevil\x7f [bold]x[/] ok\tyes"
SHOWN = "Bo \\u001b[31mMarsh\\u009b2J\\u0007 \\u202eevil\\u007f [bold]x[/] ok\tyes"


def test_printable_spells_control_codes_out_and_nothing_else() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("Zoë 東京 नमस्ते\n\t“x”") == "Zoë 東京 नमस्ते\n\t“x”"


def acts(text: str) -> bool:
    return any(c in text for c in "\x1b\x9b\x07\u202e\x7f")


@pytest.mark.parametrize("colours", [True, False])
def test_tables_and_lines_on_a_console(colours: bool) -> None:
    out = io.StringIO()
    console = SafeConsole(
        file=out,
        width=120,
        highlight=False,
        force_terminal=colours,
        color_system="standard" if colours else None,
    )
    table = Table(title=escape(EVIL))
    table.add_row(escape(EVIL), "[red]2[/]")
    console.print(table)
    console.print(f"[green]✓[/] {escape(EVIL)}")
    text = out.getvalue()
    assert text.count("\\u001b[31mMarsh") == 3
    if colours:  # Rich's own codes are still written
        assert "\x1b[32m✓" in text
        text = text.replace("\x1b[", "")
    assert not acts(text)


def test_stage_lines_their_log_and_errors(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(screen=SafeConsole(file=out, width=120), log_file=tmp_path / "run.log")
    console.print(escape(EVIL))
    assert not acts(out.getvalue() + (tmp_path / "run.log").read_text())
    error = DataError(f"There is no owner {EVIL}.", EVIL)
    assert not acts(str(error) + error.cause + error.cure)


@pytest.mark.parametrize("as_json", [True, False])
def test_scores(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    show_scores([{"text": EVIL, "probabilities": {EVIL: 0.5}}], as_json)
    out = capsys.readouterr().out
    assert not acts(out)
    if as_json:  # what is spelt out is JSON's own escape: the text comes back
        assert json.loads(out)["text"] == EVIL
    else:
        assert "[bold]x[/]" in out


def test_the_reader_of_the_output_may_end_first() -> None:
    """It has ended before the first word: what fits into a pipe would be written whole otherwise."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "dareu", "configs", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 1
    assert "what read the output has ended" in done.stderr and "Traceback" not in done.stderr


def test_a_folder_of_work_that_was_deleted_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} -m dareu train",
        shell=True, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2 and "was started has been deleted" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("a.so: failed to map segment"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail] not enough memory: you tried to allocate 8 bytes"),
    ],
)
def test_memory_that_is_used_up_outside_of_a_stage_is_one_message(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_: object) -> int:
        raise error

    monkeypatch.setitem(commands.COMMANDS, "configs", work)
    assert main(["configs"]) == 2
    said = capsys.readouterr().err
    assert "There is not enough memory for this process." in said and "ulimit" in said


@pytest.mark.parametrize(
    "error", [ImportError("no module"), OSError(5, "Input/output error"), RuntimeError("x")]
)
def test_other_errors_are_not_taken_for_used_up_memory(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(_: object) -> int:
        raise error

    monkeypatch.setitem(commands.COMMANDS, "configs", work)
    with pytest.raises(type(error)):
        main(["configs"])
