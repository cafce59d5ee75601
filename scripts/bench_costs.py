"""What the stages of a run took: seconds, rollouts and updates a second, memory."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_run import Record

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
    lines = [f"| {' | '.join(HEAD)} |", f"| --- |{' ---: |' * (len(HEAD) - 1)}"]
    for record in records:
        if record.failure:
            lines.append(f"| {record.name} | {record.failure} |{' |' * (len(HEAD) - 2)}")
            continue
        results, path = record.results, Path(record.run_dir) / "training.jsonl"
        lines_of_log = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        log = [json.loads(line) for line in lines_of_log]
        held = (results.get("accelerator") or {}).get("peak_memory_mb")
        cells = [
            *(_cell(results["seconds"].get(stage), 1) for stage in STAGES),
            _cell((results.get("outcome") or {}).get("steps"), 0),
            *(_cell(value, 3) for value in step_seconds(log)),
            _cell(held, 0),
            _cell(results.get("peak_memory_mb"), 0),
        ]
        lines.append(f"| {record.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}".removeprefix("0" if digits == 3 else "")
