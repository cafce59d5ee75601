"""One run as a console table and a few lines in plain words; on the screen, as text and for a notebook."""

import io
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dareu.errors import printable
from dareu.report.damage import damages
from dareu.report.figures import (
    FIGURES,
    MODELS,
    dig,
    has_model,
    missing_reasons,
    number,
    show,
    show_seconds,
    value,
)
from dareu.report.forget_quality import quality_of
from dareu.report.knowledge import knowledge_left, set_aside, worst
from dareu.report.sequential import rounds_table
from dareu.report.stacked import Stacked
from dareu.report.templates import template
from dareu.report.verdict import verdict

BROKEN_CURE = "Its text broke before it forgot: take method=dareu_warm, or lower method.optim.lr."


def run_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dict a model that the run has: `model`, and every key of `FIGURES` as a float or None."""
    return [
        {"model": model, **{f.key: value(results, f.key, model) for f in FIGURES}}
        for model in MODELS
        if has_model(results, model)
    ]


def run_table(results: Mapping[str, Any]) -> Table:
    """Original, retrained and unlearned model; ROUGE-L recall, attribution and broken text, each 0 to 1."""
    title = Text(f"{results.get('method', 'run')}, seed {results.get('seed', '?')}", style="bold")
    table = Stacked(
        title=title, title_justify="left", box=None, padding=(0, 1), pad_edge=False, header_style="dim"
    )
    table.add_column("model", vertical="bottom")
    for figure in FIGURES:
        table.add_column(figure.short, justify="right")
    for row in run_rows(results):
        style = "bold" if row["model"] == "unlearned" else ""
        table.add_row(row["model"], *(show(row[f.key]) for f in FIGURES), style=style)
    return table


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """Scores, cost, how training ended and what is missing, in plain words; safe to print as Rich markup."""
    text = template("summary.txt.j2").render(
        results=results,
        most=worst(results),
        left=knowledge_left(results),
        aside=set_aside(results),
        compared=has_model(results, "retrained"),
        tug=number(results.get("tug_of_war")),
        quality=quality_of(results),
        damages=damages(results),
        part=dig(results, "data", "part"),
        cost=cost_line(results),
        outcome=outcome_line(results),
        missing=missing_reasons(results),
    )
    return [escape(line) for line in text.splitlines()]


def cost_line(results: Mapping[str, Any]) -> str:
    """Seconds of unlearning, and what share they are of retraining's."""
    unlearn, retrain = (
        number(dig(results, "seconds", "unlearn")),
        number(dig(results, "seconds", "retrained")),
    )
    if unlearn is None:
        return "The seconds of unlearning are not known."
    rounds = len(results.get("rounds") or [])
    line = f"Unlearning took {show_seconds(unlearn)}"
    if rounds:
        line += f" in {rounds} rounds together" if rounds > 1 else " in one round"
    if retrain is None:
        return line + "."
    of = f"{show(unlearn / retrain, 2)} of" if retrain > 0 else "beside"
    once = " once" if rounds > 1 else ""
    return f"{line}, {of} the {show_seconds(retrain)} of retraining{once}."


def outcome_line(results: Mapping[str, Any]) -> str:
    """How training ended; empty where the run does not say."""
    steps, stopped = dig(results, "outcome", "steps"), dig(results, "outcome", "stopped")
    if number(steps) is None:
        return ""
    last = " in the last round" if len(results.get("rounds") or []) > 1 else ""
    if not stopped:
        return f"{steps} updates{last}, run to the end."
    broken = "broken text" in str(stopped)
    return f"{steps} updates{last}, stopped early: {stopped}." + (f" {BROKEN_CURE}" if broken else "")


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
    page = template("results.html.j2").render(
        headline=verdict(results).headline,
        figures=FIGURES,
        rows=run_rows(results),
        lines=[Text.from_markup(line).plain for line in summary_lines(results)],
    )
    return Markup(page)
