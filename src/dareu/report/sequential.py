"""Requests one after another: a line for each round, a table of them, and drawings of how the figures went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from dareu.report.drawing import mark, picture, tag, text
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
    found = results.get("rounds")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


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
        models = entry.get("models") or {}

        def rouge(part: str, model: str = "unlearned", models: Any = models) -> float | None:
            return number(dig(models, model, part, "rouge_l"))

        rows.append(
            {
                "round": entry.get("round"),
                "owners": list(entry.get("owners") or []),
                "so_far": rouge("forget"),
                "so_far_retrained": rouge("forget", "retrained"),
                "this_round": rouge("forget_this_round"),
                "earlier": rouge("forget_earlier"),
                "retain": rouge("retain"),
                "retain_retrained": rouge("retain", "retrained"),
                "heldout": number(dig(models, "unlearned", "forget", "attribution_heldout")),
                "tug_of_war": number(entry.get("tug_of_war")),
                "retrain_similarity": number(entry.get("retrain_similarity")),
                "seconds": number(dig(entry, "seconds", "unlearn")),
            }
        )
    return rows


# Key of `round_rows`, title, console title (a terminal is narrow, and shows those that have one).
COLUMNS = (
    ("so_far", "Forgotten so far", "so\nfar"),
    ("so_far_retrained", "Retrained, the same", "re-\ntrained"),
    ("this_round", "This round's owners", "this\nround"),
    ("earlier", "Forgotten earlier", "earlier\nrounds"),
    ("retain", "Retain", "retain\nROUGE"),
    ("heldout", "Held-out attribution", ""),
    ("tug_of_war", "Tug-of-War", "Tug-of-\nWar"),
    ("retrain_similarity", "Retrain similarity", "retrain\nsim."),
)


def rounds_table(results: Mapping[str, Any]) -> Table | None:
    """A Rich table, one line a round: ROUGE-L recall of the unlearned model, 0 to 1; None without rounds."""
    rows = round_rows(results)
    if not rows:
        return None
    shown = [c for c in COLUMNS if c[2] and any(row[c[0]] is not None for row in rows)]
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
    for _, _, short in shown:
        table.add_column(short, justify="right", no_wrap=True)
    for row in rows:
        cells = [show(row[key]) for key, *_ in shown]
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
    columns = [(key, title) for key, title, _ in COLUMNS if any(row[key] is not None for row in rows)]
    found = entries(results)
    panels = []
    for title, note, path, of_model in PANELS:
        models = MODELS if of_model else ("unlearned",)
        lines = {
            m: [number(dig(e, "models", m, *path) if of_model else dig(e, *path)) for e in found]
            for m in models
        }
        lines = {m: values for m, values in lines.items() if any(v is not None for v in values)}
        if lines:
            panels.append({"title": title, "note": note, "drawing": panel(lines)})
    return {
        "columns": columns,
        "rows": [row | {"named": named(row["owners"])} for row in rows],
        "panels": panels,
        "returns": _returns(found) if len(found) > 1 else [],
        "retrained": [
            show(dig(p, "rouge_l"))
            for p in dig(found[-1], "models", "retrained", "forget_by_round") or []
        ],
    }  # fmt: skip


def _returns(found: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """(request, its ROUGE-L after each round from its own on, empty before that)."""
    out = []
    for i, entry in enumerate(found):
        cells = [""] * i
        for later in found[i:]:
            parts = dig(later, "models", "unlearned", "forget_by_round") or []
            cells.append(show(dig(parts[i], "rouge_l")) if i < len(parts) else show(None))
        out.append((f"{entry.get('round')}: {named(entry.get('owners') or [], 2)}", cells))
    return out


def panel(lines: Mapping[str, Sequence[float | None]]) -> Markup:
    """Each model's value (0 to 1) round by round; a gap where a round has none."""
    width, height, left, top, right, bottom = 320.0, 190.0, 34.0, 12.0, 14.0, 24.0
    w, h = width - left - right, height - top - bottom
    rounds = max(len(values) for values in lines.values())
    inset = 14.0  # so that the first marks leave the scale free
    step = (w - 2 * inset) / max(rounds - 1, 1)

    def at(i: int, value: float) -> tuple[float, float]:
        x = left + (w / 2 if rounds == 1 else inset + i * step)
        return x, top + h * (1 - min(max(value, 0.0), 1.0))

    out = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        _, y = at(0, value)
        out += [
            tag("line", x1=left, x2=left + w, y1=y, y2=y, class_="grid"),
            text(left - 7, y + 4, show(value, 2), "tick", "end"),
        ]
    every = -(-rounds // 10)
    out += [
        text(at(i, 0)[0], height - 6, str(i + 1), "tick", "middle")
        for i in range(rounds)
        if i % every == 0 or i == rounds - 1
    ]
    for model in ("original", "retrained", "unlearned"):
        values = lines.get(model, ())
        places = [(i, at(i, v)) for i, v in enumerate(values) if v is not None]
        for (i, (x1, y1)), (j, (x2, y2)) in zip(places, places[1:], strict=False):
            if j == i + 1:
                out.append(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=f"course {model}"))
        out += [mark(model, x, y) for _, (x, y) in places]
    return picture(out, width, height, "strips", "Value of each model, round by round")
