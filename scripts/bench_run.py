"""Runs of `dareu train` as processes of their own: timed, weighed, remembered, and not repeated."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dareu.config.compose import compose
from dareu.evaluation.results import Results
from dareu.runs.manifest import content_key

DAREU = (sys.executable, "-m", "dareu.cli")
TRAIN = (*DAREU, "train")
TRAINING_FAILED = 3  # exit code of a run whose loss was no longer finite: a result, not a mishap
POLL = 0.1  # seconds between two looks at the memory


class BenchmarkError(Exception):
    """A run that could not be made; the message says why and where its log is."""


@dataclass(frozen=True)
class Measured:
    """Exit code, wall seconds, and the most memory (MB of 10^6 bytes) that the process and its children held."""

    exit_code: int
    wall_seconds: float
    peak_memory_mb: float


@dataclass(frozen=True)
class Record:
    """One run. `results` is its results.json, empty where it failed; `key` stands for its whole configuration."""

    name: str
    key: str
    overrides: list[str]
    date: str
    wall_seconds: float
    peak_memory_mb: float
    run_dir: str
    results: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None


def tree_bytes(root: int) -> int:
    """Resident bytes of a process and all below it, now (Linux; 0 elsewhere). Shared pages count for each."""
    parents, pages = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # ended meanwhile
            continue
        pid = int(stat.parent.name)
        parents[pid], pages[pid] = int(fields[1]), int(fields[21])
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(pages.get(pid, 0) for pid in tree) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def ended_with_us(process: subprocess.Popen[Any]) -> Iterator[None]:
    """`process` does not outlive the block where that ends by an exception, a signal's among them."""
    try:
        yield
    except BaseException:
        process.terminate()
        process.wait()
        raise


def measure(command: Sequence[str], log: Path) -> Measured:
    """Run `command` to its end, its output in `log`.

    The peak is the larger of two: what the system kept account of for the largest single process, and the sum
    over all processes as seen every `POLL` seconds. That account starts from this process's own memory, so it says
    something only where it is higher.
    """
    with log.open("w", encoding="utf-8") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        peak, ended = 0, 0
        with ended_with_us(process):
            while not ended:
                peak = max(peak, tree_bytes(process.pid))
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                if not ended:
                    time.sleep(POLL)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        peak = max(peak, usage.ru_maxrss * unit)
    return Measured(process.returncode, time.perf_counter() - start, peak / 1e6)


class Runner:
    """The runs of one item, below `folder`, with `runs.jsonl` as their memory.

    A run is repeated only where its configuration is another than the one remembered under its name, or where
    its outcome is gone. A changed program is not noticed: throw the folder away (`--fresh`).
    """

    def __init__(self, folder: Path, extra: Sequence[str] = (), command: Sequence[str] = TRAIN) -> None:
        self.folder, self.extra, self.command = folder, tuple(extra), tuple(command)
        self.memory = folder / "runs.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def remembered(self, name: str, overrides: Sequence[str]) -> Record | None:
        """The finished (or failed) run of this name, if its configuration is still the same."""
        lines = self.memory.read_text(encoding="utf-8").splitlines() if self.memory.is_file() else []
        found = [r for r in map(json.loads, lines) if r["name"] == name]
        if not found or found[-1]["key"] != self.key(overrides):
            return None
        record = Record(**found[-1])
        kept = self.folder / name / ("failure.json" if record.failure else "results.json")
        return record if kept.is_file() else None

    def run(self, name: str, overrides: Sequence[str], cache: Path | None = None) -> Record:
        """The record of a run, made now unless it is remembered. `cache` is by default the item's own."""
        if known := self.remembered(name, overrides):
            say(f"{known.name}: from {self.memory}")
            return known
        run_dir, log = self.folder / name, self.folder / f"{name}.log"
        where = [f"run_dir={json.dumps(str(run_dir))}", f"cache_dir={json.dumps(str(cache or self.cache))}"]
        given = [*overrides, *self.extra]
        measured = measure([*self.command, *given, *where, "overwrite=true"], log)
        record = Record(
            name=name,
            key=self.key(overrides),
            overrides=given,
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            wall_seconds=measured.wall_seconds,
            peak_memory_mb=measured.peak_memory_mb,
            run_dir=str(run_dir),
            **self._outcome(name, measured.exit_code, run_dir, log),
        )
        append(self.memory, asdict(record))
        scores = [record.results.get(key) for key in ("tug_of_war", "tug_of_war_without_test")]
        outcome = record.failure or f"Tug-of-War {next((s for s in scores if s is not None), None)}"
        say(f"{name}: {record.wall_seconds:.1f} s, {record.peak_memory_mb:.0f} MB, {outcome}")
        return record

    def tune(self, asked: Sequence[str], folder: Path) -> None:
        """`dareu tune`, which remembers by itself what it has done; told on this process's own stderr."""
        where = [f"run_dir={json.dumps(str(folder))}", f"cache_dir={json.dumps(str(self.cache))}"]
        process = subprocess.Popen([*DAREU, "tune", *asked, *self.extra, *where], stdout=subprocess.DEVNULL)
        with ended_with_us(process):
            code = process.wait()
        if code not in (0, TRAINING_FAILED):
            raise BenchmarkError(f"dareu tune ended with exit code {code}; {folder / 'tune.log'} says more.")

    @property
    def cache(self) -> Path:
        """Kept across seeds and methods, so that the original and the retrained model are made once."""
        return self.folder / "cache"

    def forget(self, *names: str) -> None:
        """Remove what lies under these names: run folders or caches."""
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def key(self, overrides: Sequence[str]) -> str:
        """Stands for all that a run's figures depend on, but the program and the contents of the user's files."""
        config = compose([*overrides, *self.extra])
        return content_key(config.model_dump(exclude={"run_dir", "cache_dir", "overwrite", "logging"}))

    def _outcome(self, name: str, code: int, run_dir: Path, log: Path) -> dict[str, Any]:
        """Results or failure. A failed run leaves its own failure.json, which comparisons read."""
        if code == 0:
            return {"results": Results.read(run_dir).tree()}
        told = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("dareu:")]
        reason = told[-1].removeprefix("dareu: ") if told else "no reason was given."
        if code != TRAINING_FAILED:
            raise BenchmarkError(f"{name} ended with exit code {code}: {reason} Its log is {log}.")
        return {"failure": reason}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def append(path: Path, row: Any) -> None:
    """Add one line to a JSON lines file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
