"""Progress on stderr: a bar where a person looks on, a line every half minute where the output goes into a file."""

import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

T = TypeVar("T")
DELAY = 1.5  # seconds before a bar is drawn, so that short steps draw none
PAUSE = 30.0  # seconds between two lines


class Bar:
    """Progress of something that has `total` steps.

    Args:
        label: Its name; None shows nothing.
        total: Steps in all.
        done: Steps that an earlier attempt has done.
    """

    def __init__(self, label: str | None, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self.screen = Console(stderr=True, highlight=False, soft_wrap=True)
        notebook = self.screen.is_jupyter and find_spec("ipywidgets") is not None
        self.draws = self.screen.is_terminal or notebook
        self.next = time.monotonic() + (DELAY if self.draws else PAUSE)
        self.bar: Progress | None = None

    def update(self, done: int) -> None:
        """So many steps are done."""
        self.done = done
        if self.label is None or (self.bar is None and time.monotonic() < self.next):
            return
        if not self.draws:
            self.next = time.monotonic() + PAUSE
            self.screen.print(f"  [dim]{escape(self.label)}: {done} of {self.total}[/]")
            return
        if self.bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.screen, transient=True)
            self.task = self.bar.add_task(escape(self.label), total=self.total, completed=done)
            self.bar.start()
        self.bar.update(self.task, completed=done)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def track(items: Sequence[T], label: str | None) -> Iterable[T]:
    """`items`, with their progress shown under `label`; None shows nothing."""
    return items if label is None else _tracked(items, label)


def _tracked(items: Sequence[T], label: str) -> Iterator[T]:
    bar = Bar(label, len(items))
    try:
        for number, item in enumerate(items):
            yield item
            bar.update(number + 1)
    finally:
        bar.close()


class StepBar(TrainerCallback):
    """A trainer's progress over optimizer steps, in place of its own, which prints every log line too."""

    def __init__(self, label: str | None) -> None:
        self.label = label
        self.bar: Bar | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.label is not None and state.is_world_process_zero:
            self.bar = Bar(self.label, state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Called by whoever ends training early, too."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
