"""What the command line prints once stages are done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from dareu.config.choices import options
from dareu.config.reference import lines
from dareu.errors import ConfigError, nearest, printable
from dareu.report import comparison
from dareu.report.figures import BY_KEY
from dareu.report.run_tables import print_results
from dareu.report.stacked import Stacked
from dareu.runs.files import write_text
from dareu.workflow.console import SafeConsole

if TYPE_CHECKING:
    from dareu.tuning.options import TuneCommand
    from dareu.tuning.tuner import Tuned

ATTRIBUTOR = {
    "accuracy_heldout": "accuracy, held-out responses",
    "accuracy_original_responses": "accuracy, the original model's own responses",
    "ece_before": "expected calibration error before the temperature",
    "ece_after": "expected calibration error after it",
    "temperature": "temperature",
}
FORMATS = {"markdown": comparison.to_markdown, "csv": comparison.to_csv, "latex": comparison.to_latex}


def show_results(results: dict[str, Any]) -> None:
    """The table of one run and where its report lies."""
    console = SafeConsole(highlight=False)
    print_results(console, results)
    folder = escape(str(results["run_dir"]))
    console.print(f"Run folder: {folder}  (open report.html there)", soft_wrap=True)


def show_comparison(
    paths: Sequence[str | Path], form: str = "table", out: str | None = None, sort: str = "retrain_similarity"
) -> None:
    """One table over runs, mean ± sd over seeds; as a console table or as text in another format.

    `sort`: the figure by which methods stand in order.

    Raises:
        ConfigError: There is no such figure, or `out` does not go with `form`.
    """
    if sort not in BY_KEY:
        raise ConfigError(f"There is no figure '{sort}' to sort by.", nearest(sort, BY_KEY))
    runs = comparison.load_runs([Path(p) for p in paths])
    if form == "table":
        if out:
            raise ConfigError(
                "--out does not go with --format table.", "Give --format markdown, csv or latex with --out."
            )
        SafeConsole(highlight=False).print(comparison.comparison_table(runs, sort))
        return
    text = FORMATS[form](runs, sort)
    if out:
        write_text(Path(out), text)
        print(f"Table: {printable(out)}")
    else:
        print(printable(text), end="")


def show_search(command: TuneCommand, as_json: bool = False) -> None:
    """What `dareu tune` would do: its keys, and what each method's trials look through."""
    import yaml

    from dareu.tuning.tuner import methods_of

    spaces = {
        method.name: {
            key: {"default": method.defaults[key], "search": method.config.method.search[key]}
            for key in method.space
        }
        for method in methods_of(command)
    }
    tree = {"tune": command.tune.model_dump(mode="json"), "search": spaces}
    text = (
        json.dumps(tree, ensure_ascii=False) + "\n"
        if as_json
        else yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    )
    print(text, end="")


def show_plan(plan: dict[str, Any]) -> None:
    """The stages of a run that has not been started, which of them the store holds, and the memory it will take."""
    console = SafeConsole(highlight=False)
    for note in plan["notes"]:
        console.print(escape(note))
    table = Stacked(title="Stages", title_justify="left")
    table.add_column("stage", min_width=14)
    table.add_column("in the store")
    table.add_column("key")
    for stage in plan["stages"]:
        table.add_row(escape(stage["stage"]), "yes" if stage["stored"] else "no", stage["key"])
    console.print(table)
    parts = plan["memory_mib"]
    if parts is None:
        console.print("Memory: not known before the model is loaded.")
        return
    shown = ", ".join(
        f"{name} {value:.0f}" for name, value in parts.items() if name != "total" and value >= 0.5
    )
    console.print(f"Memory, estimated: {parts['total']:.0f} MiB ({shown}).")
    if plan["memory_warning"]:
        console.print(f"[yellow]! {escape(plan['memory_warning'])}[/]")


def show_tuned(tuned: Tuned, as_json: bool = False) -> None:
    """The leaderboard, and where all of it lies."""
    console = SafeConsole(highlight=False)
    if tuned.runs and not as_json:
        console.print(comparison.comparison_table(comparison.load_runs(tuned.runs)))
    if as_json:
        tree = {"folder": str(tuned.folder), "runs": [str(r) for r in tuned.runs], "failed": tuned.failed}
        print(printable(json.dumps(tree, ensure_ascii=False)))
        return
    folder = escape(str(tuned.folder))
    console.print(f"Folder: {folder}  (trials.csv, chosen.yaml, leaderboard.md, runs/)", soft_wrap=True)


def show_configs(config_dir: str | None = None) -> None:
    """Every group and option, with one line each."""
    console = SafeConsole(highlight=False)
    for group, choices in options(config_dir).items():
        if not choices:
            continue
        table = Table(title=f"{group}=…", title_justify="left", show_header=False, box=None, pad_edge=False)
        for name, line in choices.items():
            table.add_row(f"[bold]{escape(name)}[/]", escape(line))
        console.print(table)
        console.print()
    console.print(
        "Keys: `dareu configs KEY` explains a key and the values that it takes; "
        "`dareu train --print key=value …` shows the whole configuration that a command composes."
    )


def show_keys(names: Sequence[str]) -> None:
    """What each key, and each key below a group, means, may be, and is by default."""
    console = SafeConsole(highlight=False)
    for key, allowed, default, meaning in lines(names):
        console.print(
            f"[bold]{escape(key)}[/]  [dim]{escape(allowed)}; default {escape(default)}[/]", soft_wrap=True
        )
        console.print(f"    {escape(meaning)}", soft_wrap=True)


def show_attributor(report: dict[str, Any]) -> None:
    """Where the classifier lies (`folder`) and how good it is; its warnings were printed when it was made or loaded."""
    console = SafeConsole(highlight=False)
    table = Stacked(title="Attribution classifier", title_justify="left", show_header=False)
    for name, label in ATTRIBUTOR.items():
        value = report.get(name)
        table.add_row(label, "–" if value is None else f"{value:.3f}")
    quarters = report.get("accuracy_heldout_by_quarter") or []
    table.add_row(
        "accuracy, held-out prefixes by quarter of length",
        "  ".join("–" if q is None else f"{q:.3f}" for q in quarters),
    )
    console.print(table)
    console.print(f"Folder: {escape(str(report['folder']))}", soft_wrap=True)


def show_scores(rows: Sequence[dict[str, Any]], as_json: bool, top: int = 5) -> None:
    """Owners and probabilities of texts."""
    if as_json:
        for row in rows:
            print(printable(json.dumps(row, ensure_ascii=False)))
        return
    console = SafeConsole(highlight=False)
    for row in rows:
        text = row["text"] if len(row["text"]) < 90 else row["text"][:89] + "…"
        table = Stacked(title=escape(text), title_justify="left")
        table.add_column("owner")
        table.add_column("probability", justify="right")
        for owner, p in list(row["probabilities"].items())[:top]:
            table.add_row(escape(owner), f"{p:.3f}")
        console.print(table)
