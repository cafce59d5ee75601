"""Requests one after another: a line for each round, a table of them, and drawings of how the figures went."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from dareu.report import drawing as svg
from dareu.report.figures import MODELS, dig, number, show

Entry = Mapping[str, Any]

# Title, what it says, where it lies below a round's `models.<model>`; without a model below the round itself.
PANELS = (
    ("Forgotten so far", "ROUGE-L on the questions of everybody forgotten up to then", ("forget", "rouge_l"), True),
    ("This round's owners", "ROUGE-L on the questions of this round alone", ("forget_this_round", "rouge_l"), True),
    ("Forgotten earlier", "ROUGE-L on earlier rounds' questions: is it back?", ("forget_earlier", "rouge_l"), True),
    ("Retain", "ROUGE-L on the owners who are still there", ("retain", "rouge_l"), True),
    ("Test", "ROUGE-L on questions that belong to no owner", ("test", "rouge_l"), True),
    ("Tug-of-War", "against the model retrained without everybody forgotten so far", ("tug_of_war",), False),
)  # fmt: skip


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
        row = {key: number(dig(entry, *path)) for key, path, _, _ in COLUMNS}
        row["seconds"] = number(dig(entry, "seconds", "unlearn"))
        rows.append({"round": entry.get("round"), "owners": list(entry.get("owners") or []), **row})
    return rows


# Key, path below a round, title, console title (a terminal is narrow, and shows those that have one).
_UNLEARNED, _RETRAINED = ("models", "unlearned"), ("models", "retrained")
COLUMNS = (
    ("so_far", (*_UNLEARNED, "forget", "rouge_l"), "Forgotten so far", "so\nfar"),
    ("so_far_retrained", (*_RETRAINED, "forget", "rouge_l"), "Retrained, the same", "re-\ntrained"),
    ("this_round", (*_UNLEARNED, "forget_this_round", "rouge_l"), "This round's owners", "this\nround"),
    ("earlier", (*_UNLEARNED, "forget_earlier", "rouge_l"), "Forgotten earlier", "earlier\nrounds"),
    ("retain", (*_UNLEARNED, "retain", "rouge_l"), "Retain", "retain\nROUGE"),
    ("heldout", (*_UNLEARNED, "forget", "attribution_heldout"), "Held-out attribution", ""),
    ("tug_of_war", ("tug_of_war",), "Tug-of-War", "Tug-of-\nWar"),
    ("retrain_similarity", ("retrain_similarity",), "Retrain similarity", "retrain\nsim."),
)


def rounds_table(results: Mapping[str, Any]) -> Table | None:
    """A Rich table, one line a round: ROUGE-L recall of the unlearned model, 0 to 1; None without rounds."""
    rows = round_rows(results)
    if not rows:
        return None
    shown = [(c[0], c[3]) for c in COLUMNS if c[3] and any(row[c[0]] is not None for row in rows)]
    table = Table(
        title=Text("Round by round: forget ROUGE-L so far, of this round and of earlier ones", style="bold"),
        title_justify="left",
        box=None,
        padding=(0, 1),
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("round", justify="right")
    table.add_column("owners", overflow="fold", min_width=12, max_width=24)
    for _, short in shown:
        table.add_column(short, justify="right", no_wrap=True)
    for row in rows:
        cells = [show(row[key]) for key, _ in shown]
        table.add_row(str(row["round"]), Text(named(row["owners"], 2)), *cells)
    return table


def named(owners: Sequence[str], most: int = 4) -> str:
    """The first names and how many more there are."""
    more = len(owners) - most
    return ", ".join(owners[:most]) + (f" and {more} more" if more > 0 else "")


def rounds_page(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page shows of the rounds: table, drawings, and what became of each request; None without rounds."""
    rows = round_rows(results)
    if not rows:
        return None
    columns = [(key, title) for key, _, title, _ in COLUMNS if any(row[key] is not None for row in rows)]
    requests = entries(results)
    panels = []
    for title, note, path, of_model in PANELS:
        models = MODELS if of_model else ("unlearned",)
        lines = {
            m: [number(dig(e, "models", m, *path) if of_model else dig(e, *path)) for e in requests]
            for m in models
        }
        lines = {m: values for m, values in lines.items() if any(v is not None for v in values)}
        if lines:
            panels.append({"title": title, "note": note, "drawing": svg.rounds(lines)})
    return {
        "columns": columns,
        "rows": [row | {"named": named(row["owners"])} for row in rows],
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
        out.append((f"{entry.get('round')}: {named(entry.get('owners') or [], 2)}", cells))
    return out
