"""The table of one run with its lines, on the screen, as text and for a notebook."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from dareu.errors import printable
from dareu.report.console_tables import run_rows, run_table, summary_lines
from dareu.report.figures import FIGURES, show
from dareu.report.sequential import rounds_table
from dareu.report.verdict import verdict


def print_results(console: Console, results: Mapping[str, Any]) -> None:
    rounds = rounds_table(results)
    if rounds is not None:
        console.print(rounds)
        console.print()
    console.print(run_table(results))
    for line in summary_lines(results):
        console.print(line)


def results_text(results: Mapping[str, Any]) -> str:
    """The table of one run and the lines below it, as plain text."""
    console = Console(file=io.StringIO(), width=100, highlight=False, color_system=None, force_jupyter=False)
    print_results(console, results)
    return printable(console.file.getvalue().rstrip())  # type: ignore[attr-defined]


def results_html(results: Mapping[str, Any]) -> Markup:
    """The same for a notebook, with the verdict above it; each column's definition shows under the pointer."""
    head = Markup("").join(Markup('<th title="{}">{}</th>').format(f.note, f.title) for f in FIGURES)
    rows = Markup("").join(
        Markup("<tr><th>{}</th>{}</tr>").format(
            row["model"], Markup("").join(Markup("<td>{}</td>").format(show(row[f.key])) for f in FIGURES)
        )
        for row in run_rows(results)
    )
    lines = Markup("<br>").join(Text.from_markup(line).plain for line in summary_lines(results))
    return Markup(
        "<p><b>{}</b></p><table><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table><p>{}</p>"
    ).format(verdict(results).headline, head, rows, lines)
