"""What the command line prints once stages are done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dareu.pipeline.compose import options
from dareu.report import compare as comparison
from dareu.report.tables import run_table, summary_lines
from dareu.runs.atomic import write_text

FORMATS = {"markdown": comparison.to_markdown, "csv": comparison.to_csv, "latex": comparison.to_latex}


def show_results(results: dict[str, Any]) -> None:
    """The table of one run and where its report lies."""
    console = Console(highlight=False)
    console.print(run_table(results))
    for line in summary_lines(results):
        console.print(line)
    console.print(f"Run folder: {results['run_dir']}  (open report.html there)", soft_wrap=True)


def show_comparison(paths: Sequence[str | Path], form: str = "table", out: str | None = None) -> None:
    """One table over runs, mean ± sd over seeds; as a console table or as text in another format."""
    runs = comparison.load_runs([Path(p) for p in paths])
    if form == "table":
        Console(highlight=False).print(comparison.comparison_table(runs))
        return
    text = FORMATS[form](runs)
    if out:
        write_text(Path(out), text)
    else:
        print(text)


def show_configs(config_dir: str | None = None) -> None:
    """Every group and option, with one line each."""
    console = Console(highlight=False)
    for group, found in options(config_dir).items():
        if not found:
            continue
        table = Table(title=f"{group}=…", title_justify="left", show_header=False, box=None, pad_edge=False)
        for name, line in found.items():
            table.add_row(f"[bold]{name}[/]", line)
        console.print(table)
        console.print()
    console.print(
        "Keys: `dareu train --print key=value …` shows the whole configuration that a command composes."
    )


def show_attributor(folder: Path, report: dict[str, Any]) -> None:
    """Where the classifier lies and how good it is."""
    console = Console(highlight=False)
    table = Table(title="Attribution classifier", title_justify="left", show_header=False)
    for name in ("accuracy_heldout", "accuracy_original_responses", "ece_before", "ece_after", "temperature"):
        value = report.get(name)
        table.add_row(name.replace("_", " "), "–" if value is None else f"{value:.3f}")
    quarters = report.get("accuracy_heldout_by_quarter") or []
    table.add_row(
        "accuracy by quarter of length", "  ".join("–" if q is None else f"{q:.3f}" for q in quarters)
    )
    console.print(table)
    for warning in report.get("warnings", []):
        console.print(f"[yellow]! {warning}[/]")
    console.print(f"Folder: {folder}", soft_wrap=True)


def show_scores(rows: Sequence[dict[str, Any]], as_json: bool, top: int = 5) -> None:
    """Owners and probabilities of texts."""
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for row in rows:
        table = Table(
            title=row["text"] if len(row["text"]) < 90 else row["text"][:89] + "…", title_justify="left"
        )
        table.add_column("owner")
        table.add_column("probability", justify="right")
        for owner, p in list(row["probabilities"].items())[:top]:
            table.add_row(owner, f"{p:.3f}")
        console.print(table)
