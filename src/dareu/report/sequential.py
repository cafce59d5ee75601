"""Requests one after another: a line for each round, a table of them, and drawings of how the figures went."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from dareu.config.tables import read_table
from dareu.errors import listed
from dareu.report import drawing as svg
from dareu.report.figures import MODELS, dig, number, show
from dareu.report.stacked import Stacked

Entry = Mapping[str, Any]

TABLE = read_table("dareu.report", "rounds.yaml")


def entries(results: Mapping[str, Any]) -> list[Entry]:
    """The rounds of a run; empty for a run with a single request."""
    return list(results.get("rounds") or [])


def round_line(entry: Entry) -> str:
    """The figures of a round in one line of plain words."""

    def rouge(part: str, model: str = "unlearned") -> str:
        return show(dig(entry, "models", model, part, "rouge_l"))

    beside = f" (retrained {rouge('forget', 'retrained')})" if "retrained" in entry["models"] else ""
    parts = [f"ROUGE-L on everything forgotten so far {rouge('forget')}{beside}"]
    if dig(entry, "models", "unlearned", "forget_earlier"):
        parts.append(
            f"this round's owners {rouge('forget_this_round')}, earlier ones {rouge('forget_earlier')}"
        )
    parts.append(f"retain {rouge('retain')}")
    if number(entry.get("tug_of_war")) is not None:
        parts.append(f"Tug-of-War {show(entry['tug_of_war'])}")
    elif number(entry.get("tug_of_war_without_test")) is not None:
        parts.append(f"Tug-of-War without test {show(entry['tug_of_war_without_test'])}")
    return "; ".join(parts) + "."


def round_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dict a round: `round`, `owners`, the unlearned and the retrained model's figures, seconds of unlearning."""
    rows = []
    for entry in entries(results):
        row = {one["key"]: number(dig(entry, *one["path"])) for one in TABLE["columns"]}
        row["seconds"] = number(dig(entry, "seconds", "unlearn"))
        rows.append({"round": entry.get("round"), "owners": list(entry.get("owners") or []), **row})
    return rows


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those in which a round has a figure."""
    return [one for one in TABLE["columns"] if any(row[one["key"]] is not None for row in rows)]


def rounds_table(results: Mapping[str, Any]) -> Table | None:
    """A Rich table, one line a round: ROUGE-L recall of the unlearned model, 0 to 1; None without rounds."""
    rows = round_rows(results)
    if not rows:
        return None
    shown = [one for one in _columns(rows) if one["short"]]
    table = Stacked(
        title=Text("Round by round: forget ROUGE-L so far, of this round and of earlier ones", style="bold"),
        title_justify="left",
        box=None,
        padding=(0, 1),
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("round", justify="right")
    table.add_column("owners", no_wrap=False, min_width=12, max_width=24)
    for one in shown:
        table.add_column(one["short"], justify="right")
    for row in rows:
        cells = [show(row[one["key"]]) for one in shown]
        table.add_row(str(row["round"]), Text(listed(row["owners"], 2)), *cells)
    return table


def rounds_page(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page shows of the rounds: table, drawings, and what became of each request; None without rounds."""
    rows = round_rows(results)
    if not rows:
        return None
    requests = entries(results)
    panels = []
    for panel in TABLE["panels"]:
        lines = {}
        for model in MODELS if "MODEL" in panel["path"] else ("unlearned",):
            path = [model if part == "MODEL" else part for part in panel["path"]]
            lines[model] = [number(dig(entry, *path)) for entry in requests]
        lines = {m: values for m, values in lines.items() if any(v is not None for v in values)}
        if lines:
            panels.append(panel | {"drawing": svg.rounds(lines)})
    return {
        "columns": [(one["key"], one["title"]) for one in _columns(rows)],
        "rows": [row | {"named": listed(row["owners"], 4)} for row in rows],
        "panels": panels,
        "returns": _returns(requests) if len(requests) > 1 else [],
        "retrained": [
            show(dig(p, "rouge_l"))
            for p in dig(requests[-1], "models", "retrained", "forget_by_round") or []
        ],
    }  # fmt: skip


def _returns(requests: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """(request, its ROUGE-L after each round from its own on, empty before that)."""
    out = []
    for i, entry in enumerate(requests):
        cells = [""] * i
        for later in requests[i:]:
            parts = dig(later, "models", "unlearned", "forget_by_round") or []
            cells.append(show(dig(parts[i], "rouge_l")) if i < len(parts) else show(None))
        out.append((f"{entry.get('round')}: {listed(entry.get('owners') or [], 2)}", cells))
    return out
