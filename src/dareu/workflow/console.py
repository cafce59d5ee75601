"""What a person sees while stages run: one line a stage on stderr, tables on stdout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from dareu.errors import printable


class SafeConsole(Console):
    """A console on which text of the data cannot act: control codes are spelt out, only Rich's own are written."""

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:  # type: ignore[override]
        for segment in super().render(renderable, options):
            if segment.control is None and segment.text != printable(segment.text):
                segment = Segment(printable(segment.text), segment.style)
            yield segment


@dataclass
class Talk:
    """Tells of stages; silent for use as a library. With `log` every line also goes into that file."""

    silent: bool = False
    console: Console = field(
        default_factory=lambda: SafeConsole(stderr=True, highlight=False, soft_wrap=True)
    )
    log: Path | None = None

    def say(self, text: str) -> None:
        """Print a line of Rich markup and put it into the log."""
        if not self.silent:
            self.console.print(text)
        self.note(Text.from_markup(text).plain.strip())

    def note(self, text: str) -> None:
        """Put a line into the log alone."""
        if self.log is not None:
            with suppress(OSError), self.log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {printable(text)}\n")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A line when the stage ends, with its seconds."""
        start = time.perf_counter()
        yield
        self.say(f"[green]✓[/] {name} [dim]{time.perf_counter() - start:.1f} s[/]")

    def bar(self, name: str) -> str | None:
        """The label of a progress bar, or None where nobody watches: silent, or stderr goes into a file."""
        watched = self.console.is_terminal or self.console.is_jupyter
        return name if watched and not self.silent else None
