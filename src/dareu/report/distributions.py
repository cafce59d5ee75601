"""What lies beneath the greedy answers: how likely the forgotten answers still are, and how often they come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.report import drawing as svg
from dareu.report.figures import MODELS, dig, number
from dareu.report.samples import read_lines

# Per-sample figures of forget answers, each 0 to 1, that are drawn as distributions.
DISTRIBUTIONS = {
    "probability": ("Probability of the forgotten answer", "share of forget answers at or below each value"),
    "extraction_strength": ("Extraction strength", "share of forget answers at or below each value"),
}


def distributions(run_dir: Path, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One drawing a figure: `title`, `note`, `drawing`; figures that no model has are left out."""
    rows = {m: read_lines(run_dir / "samples" / f"{m}.jsonl") for m in MODELS}
    found = []
    for name, (title, note) in DISTRIBUTIONS.items():
        lines = {m: cumulative(_values(rows[m], name)) for m in MODELS}
        if any(lines.values()):
            found.append({"title": title, "note": note, "drawing": svg.lines(lines, (0.0, 1.0))})
    return found + _curves(results)


def _curves(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Curves that metrics leave under `models.<model>.curves.<name>`: `x`, `y`, and optionally `title`, `note`."""
    names = dict.fromkeys(n for m in MODELS for n in dig(results, "models", m, "curves") or {})
    found = []
    for name in names:
        entries = {m: dig(results, "models", m, "curves", name) or {} for m in MODELS}
        lines = {m: _points(e.get("x") or [], e.get("y") or []) for m, e in entries.items()}
        xs = [x for line in lines.values() for x, _ in line]
        if not xs:
            continue
        labelled = next(e for e in entries.values() if e)
        drawing = svg.lines(lines, (min(xs), max(max(xs), min(xs) + 1e-9)))
        title = labelled.get("title") or name.replace("_", " ").capitalize()
        found.append({"title": title, "note": labelled.get("note") or "", "drawing": drawing})
    return found


def _points(xs: Sequence[Any], ys: Sequence[Any]) -> list[tuple[float, float]]:
    pairs = ((number(x), number(y)) for x, y in zip(xs, ys, strict=False))
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    found = (number(row.get(name)) for row in rows if row.get("set") == "forget")
    return sorted(x for x in found if x is not None)


def cumulative(values: Sequence[float]) -> list[tuple[float, float]]:
    """Corners of the empirical distribution function of sorted `values`, from (0, 0) to (1, 1)."""
    if not values:
        return []
    corners, below = [(0.0, 0.0)], 0.0
    for i, x in enumerate(values, 1):
        corners += [(x, below), (x, i / len(values))]
        below = i / len(values)
    return [*corners, (1.0, 1.0)]
