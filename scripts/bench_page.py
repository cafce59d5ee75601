"""The generated sections of the pages in docs/: each between its own two markers, with what it was made by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from bench_run import BenchmarkError, Record

from dareu.runs.manifest import versions


def write_section(page: Path, name: str, body: str) -> None:
    """Put `body` between `<!-- begin:name -->` and `<!-- end:name -->`; all else on the page stays as it is."""
    begin, end = f"<!-- begin:{name} -->", f"<!-- end:{name} -->"
    if not page.is_file():
        raise BenchmarkError(f"There is no page {page}. Give one with --results.")
    text = page.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise BenchmarkError(f"{page} needs the lines {begin} and {end}, in this order and once each.")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    partial = page.with_name(page.name + ".partial")
    kept = body.strip("\n")  # an indent at its start makes the command code
    partial.write_text(f"{head}{begin}\n\n{kept}\n\n{end}{tail}", encoding="utf-8")
    partial.replace(page)


def made_by(arguments: Sequence[str], records: Iterable[Record]) -> str:
    """The command, the dates of the runs, the machine's size and the versions; a warning where they differ."""
    records = list(records)
    dates = sorted({r.date for r in records})
    when = " to ".join(dict.fromkeys([*dates[:1], *dates[-1:]]))
    shown = [
        ", ".join(f"{name} {number}" for name, number in used.items() if number)
        for used in (r.results.get("versions") or {} for r in records)
        if used
    ]
    different = list(dict.fromkeys(shown))
    names = dict.fromkeys((r.results.get("accelerator") or {}).get("name") for r in records)
    on = ", ".join([cpus(), *(f"1 {name}" for name in names if name)])
    lines = [
        f"    python scripts/benchmark.py {' '.join(arguments)}\n",
        f"{when}; {on}; {'; or '.join(different) or 'versions unknown'}.",
    ]
    if len(different) > 1:
        lines.append("\n**Not all runs were made with the same versions.**")
    return "\n".join(lines) + "\n"


def with_origin(command: str, body: str) -> str:
    """`body` below the command that made it, today's date, the machine's size and the versions."""
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    used = ", ".join(f"{name} {number}" for name, number in versions().items() if number)
    return f"    python scripts/{command}\n\n{day}; {cpus()}; {used}.\n\n{body}"


def cpus() -> str:
    """How many CPUs this process may use, and a limit on threads where the environment sets one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    return f"{count} CPU{'' if count == 1 else 's'}" + (f", OMP_NUM_THREADS={threads}" if threads else "")
