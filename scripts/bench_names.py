"""How much of the held-out attribution is the name: answers that name whom the question asked for, and the others.

An answer that gets the name wrong is attributable to somebody else, whatever facts it tells. So the gap between the
unlearned and the retrained model is told for the answers in which both have the name right, beside that of all.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_bars import table

from dareu.report.figures import DASH, show

Rows = Sequence[Mapping[str, Any]]


def forget_rows(run: Path, model: str) -> list[dict[str, Any]]:
    """The records of `model`'s answers to the forget queries; none where the run kept none."""
    path = run / "samples" / f"{model}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [row for row in map(json.loads, lines) if row["set"] == "forget"]


def named(row: Mapping[str, Any]) -> bool | None:
    """Whether the answer has its owner's whole name; None where the reference has not either."""
    return row["owner"] in row["response"] if row["owner"] in row["reference"] else None


def gaps(unlearned: Rows, retrained: Rows) -> tuple[list[float], list[float]]:
    """Held-out attribution of unlearned minus retrained, an answer: those with both names right or not asked for; the
    others.
    """
    right, wrong = [], []
    for ours, theirs in zip(unlearned, retrained, strict=True):
        gap = ours["attribution_heldout"] - theirs["attribution_heldout"]
        (wrong if named(ours) is False or named(theirs) is False else right).append(gap)
    return right, wrong


def names_table(runs: Mapping[str, Path]) -> str:
    """One row a run, and one of all."""
    rows, every = [], ([], [], [], [])  # type: ignore[var-annotated]
    for label, folder in runs.items():
        ours, theirs = (forget_rows(folder, model) for model in ("unlearned", "retrained"))
        kept = [[n for n in map(named, some) if n is not None] for some in (theirs, ours)]
        found = (*kept, *gaps(ours, theirs))
        rows.append([label, *_cells(*found)])
        for into, more in zip(every, found, strict=True):
            into.extend(more)
    rows.append(["all", *_cells(*every)])
    head = [
        "seed",
        "names right: retrained",
        "unlearned",
        "held-out gap",
        "where both are right",
        "answers",
        "where not",
        "answers",
    ]
    return table(head, rows)


def _cells(
    theirs: Sequence[bool], ours: Sequence[bool], right: Sequence[float], wrong: Sequence[float]
) -> list[str]:
    def mean(gaps: Sequence[float]) -> str:
        return show(statistics.fmean(gaps)) if gaps else DASH

    shares = [f"{sum(some)} of {len(some)}" for some in (theirs, ours)]
    return [*shares, mean([*right, *wrong]), mean(right), str(len(right)), mean(wrong), str(len(wrong))]
