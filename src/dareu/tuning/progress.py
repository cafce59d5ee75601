"""Jobs under way, seen by the notes that they leave: a line for each that ends, and a bar over all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dareu.report.figures import show
from dareu.runs.files import read_json
from dareu.workflow.console import Talk

LOOK = 0.2  # seconds between two looks


@dataclass(frozen=True)
class Job:
    """A job's overrides, the file that it writes last, and its name for the screen."""

    overrides: list[str]
    note: Path
    what: str


@contextmanager
def watched(talk: Talk, total: int, log: Path) -> Iterator[Callable[[Sequence[Job]], None]]:
    """A function that takes jobs to watch. Those whose note is there already are counted and not told.

    The notes are files, so that jobs may run in any process and on any machine that shares the folder.
    """
    talk.log = log
    open_jobs: list[Job] = []
    lock, ended = threading.Lock(), threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=talk.console, transient=True, disable=talk.bar("tune") is None)
    task = progress.add_task("tune", total=total)

    def look() -> None:
        with lock:
            for job in [j for j in open_jobs if j.note.is_file()]:
                open_jobs.remove(job)
                talk.say(_line(job))
                progress.advance(task)

    def loop() -> None:
        while not ended.wait(LOOK):
            look()

    def watch(jobs: Sequence[Job]) -> None:
        look()  # what the jobs before have left
        with lock:
            new = [j for j in jobs if not j.note.is_file()]
            open_jobs.extend(new)
            progress.advance(task, len(jobs) - len(new))

    thread = threading.Thread(target=loop, daemon=True)
    with progress:
        thread.start()
        try:
            yield watch
        finally:
            ended.set()
            thread.join()
            look()
            talk.log = None


def _line(job: Job) -> str:
    note = read_json(job.note)
    took = f"[dim]{note['seconds']:.1f} s[/]"
    if note["failed"]:
        return f"[red]✗[/] {escape(job.what)}: {escape(note['failed'])} {took}"
    figure = f" → {show(note['objective'])}" if note.get("objective") is not None else ""
    return f"[green]✓[/] {escape(job.what)}{figure} {took}"
