"""How much of the held-out attribution is the name: answers that name whom the question asked for, and the others.

An answer that gets the name wrong is attributable to somebody else, whatever facts it tells. So the gap between the
unlearned and the retrained model is told for the answers in which both have the name right, beside that of all.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from bench_bars import table

from dareu.report.figures import DASH, show
from dareu.report.samples import read_lines

Rows = Sequence[Mapping[str, Any]]


def forget_rows(run: Path, model: str) -> Rows:
    """The records of `model`'s answers to the forget queries; none where the run kept none."""
    return [row for row in read_lines(run / "samples" / f"{model}.jsonl") if row["set"] == "forget"]


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
    found = {
        label: (forget_rows(run, "unlearned"), forget_rows(run, "retrained")) for label, run in runs.items()
    }
    every = [list(chain.from_iterable(rows)) for rows in zip(*found.values(), strict=True)]
    rows = [[label, *_cells(*some)] for label, some in found.items()]
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
    return table(head, [*rows, ["all", *_cells(*every)]])


def _cells(ours: Rows, theirs: Rows) -> list[str]:
    def mean(gaps: Sequence[float]) -> str:
        return show(statistics.fmean(gaps)) if gaps else DASH

    asked = [[n for n in map(named, rows) if n is not None] for rows in (theirs, ours)]
    right, wrong = gaps(ours, theirs)
    shares = [f"{sum(some)} of {len(some)}" for some in asked]
    return [*shares, mean([*right, *wrong]), mean(right), str(len(right)), mean(wrong), str(len(wrong))]
