"""Training curves, and what lies beneath the greedy answers: which are drawn, and what they say."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.config.tables import read_table
from dareu.report import drawing as svg
from dareu.report.figures import MODELS, dig, number, show_any
from dareu.report.samples import read_lines

TABLE = read_table("dareu.report", "drawings.yaml")


def curves(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a logged name with at least one finite value; known names first, engine counters left out."""
    names = dict.fromkeys(k for row in log for k in row if k not in TABLE["ignored"] and "/" not in k)
    known: dict[str, tuple[str, str]] = TABLE["curves"]
    drawn = []
    for name in [*(k for k in known if k in names), *(k for k in names if k not in known)]:
        numbers = [(number(row.get("step", i)), number(row.get(name))) for i, row in enumerate(log, 1)]
        points = [(s, v) for s, v in numbers if s is not None and v is not None]
        if not points:
            continue
        steps, values = [s for s, _ in points], [v for _, v in points]
        title, note = known.get(name, (name.replace("_", " "), ""))
        drawn.append(
            {
                "name": name,
                "title": title,
                "note": note,
                "known": name in known,
                "drawing": svg.curve(steps, values),
                "first": show_any(values[0]),
                "last": show_any(values[-1]),
                "low": show_any(min(values)),
                "high": show_any(max(values)),
                "steps": (f"{steps[0]:g}", f"{steps[-1]:g}"),
                "points": json.dumps([[s, show_any(v)] for s, v in points]),
            }
        )
    return drawn


def distributions(run_dir: Path, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One drawing a figure: `title`, `note`, `drawing`; figures that no model has are left out."""
    rows = {m: read_lines(run_dir / "samples" / f"{m}.jsonl") for m in MODELS}
    drawn = []
    for name, (title, note) in TABLE["distributions"].items():
        lines = {m: cumulative(_values(rows[m], name)) for m in MODELS}
        if any(lines.values()):
            drawn.append({"title": title, "note": note, "drawing": svg.lines(lines, (0.0, 1.0))})
    return drawn + _lines(results)


def _lines(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Curves among the figures of the models: leak@k, and relearning over steps."""
    drawn = []
    for path, title, note in TABLE["lines"]:
        lines = {m: _points(dig(results, "models", m, *path)) for m in MODELS}
        xs = [x for line in lines.values() for x, _ in line]
        if len(set(xs)) > 1:
            drawn.append({"title": title, "note": note, "drawing": svg.lines(lines, (min(xs), max(xs)))})
    return drawn


def _points(curve: Any) -> list[tuple[float, float]]:
    """Of a list of pairs, or of a mapping whose keys are numbers as text; in the order of x."""
    pairs = [(float(x), y) for x, y in curve.items()] if isinstance(curve, Mapping) else curve or []
    known = [(number(x), number(y)) for x, y in pairs]
    return sorted((x, y) for x, y in known if x is not None and y is not None)


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    numbers = (number(row.get(name)) for row in rows if row.get("set") == "forget")
    return sorted(x for x in numbers if x is not None)


def cumulative(values: Sequence[float]) -> list[tuple[float, float]]:
    """Corners of the empirical distribution function of sorted `values`, from (0, 0) to (1, 1)."""
    if not values:
        return []
    corners, below = [(0.0, 0.0)], 0.0
    for i, x in enumerate(values, 1):
        corners += [(x, below), (x, i / len(values))]
        below = i / len(values)
    return [*corners, (1.0, 1.0)]
