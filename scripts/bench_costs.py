"""What the stages of a run took: seconds in all, of a batch of rollouts and of an update, and memory."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_bars import table
from bench_run import Record

from dareu.report.figures import DASH, show
from dareu.report.samples import read_lines

STAGES = ("original", "retrained", "attributor", "unlearn", "evaluate")
HEAD = (
    "run",
    *(f"{stage} s" for stage in STAGES),
    "updates",
    "s a batch of rollouts",
    "s an update",
    "accelerator MB",
    "host MB",
)


def step_seconds(log: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """(what a batch of rollouts costs, what an update costs), medians in seconds, from a run's training log.

    A step that begins with rollouts (it has `reward`) does an update too, which is taken off.
    """
    steps = [row for row in log if "step_time" in row]
    plain = [row["step_time"] for row in steps if "reward" not in row]
    first = [row["step_time"] for row in steps if "reward" in row]
    if not plain or not first:
        return None, None
    update = statistics.median(plain)
    return statistics.median(first) - update, update


def costs_table(records: Sequence[Record]) -> str:
    """A row a run; a run that failed has its reason in place of figures."""
    return table(HEAD, [_row(record) for record in records])


def _row(record: Record) -> list[str]:
    if record.failure:
        return [record.name, record.failure, *[""] * (len(HEAD) - 2)]
    results = record.results
    return [
        record.name,
        *(show(results["seconds"].get(stage), 1) for stage in STAGES),
        show((results.get("outcome") or {}).get("steps"), 0),
        *map(show, step_seconds(read_lines(Path(record.run_dir) / "training.jsonl"))),
        _megabytes((results.get("accelerator") or {}).get("peak_memory_mb")),
        _megabytes(results.get("peak_memory_mb")),
    ]


def _megabytes(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"
