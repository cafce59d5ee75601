"""What a person sees while stages run: one line a stage on stderr, tables on stdout.

It lies here and not in `cli`, because notebooks and the processes of a sweep report in the same way.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.segment import Segment
from rich.text import Text

from dareu.errors import printable
from dareu.runs import ranks


class SafeConsole(RichConsole):
    """A console on which text of the data cannot act: control codes are spelt out, only Rich's own are written."""

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:  # type: ignore[override]
        for segment in super().render(renderable, options):
            if segment.control is None and segment.text != printable(segment.text):
                segment = Segment(printable(segment.text), segment.style)
            yield segment

    def on_broken_pipe(self) -> None:
        """Leave it to the command, which says that it ends, and why; Rich would end in silence."""
        raise BrokenPipeError("what read the output has ended")


@dataclass
class Console:
    """Reports stages on the screen and in a log.

    Attributes:
        silent: Print nothing. The log is written all the same. Of several processes of a run the first one reports.
        screen: Where lines are printed.
        log_file: Every line also goes there, with the time; None: no log.
    """

    silent: bool = False
    screen: RichConsole = field(
        default_factory=lambda: SafeConsole(stderr=True, highlight=False, soft_wrap=True)
    )
    log_file: Path | None = None

    def print(self, text: str) -> None:
        """Print a line of Rich markup and put it into the log."""
        if not self.silent and ranks.is_main():
            self.screen.print(text)
        self.log(Text.from_markup(text).plain.strip())

    def log(self, text: str) -> None:
        """Put a line into the log alone."""
        if self.log_file is not None and ranks.is_main():
            with suppress(OSError), self.log_file.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {printable(text)}\n")

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Print a line with the stage's seconds when it ends."""
        start = time.perf_counter()
        yield
        self.print(f"[green]✓[/] {title} [dim]{time.perf_counter() - start:.1f} s[/]")

    def progress(self, label: str) -> str | None:
        """`label` for a progress bar, or None where nothing is to be shown."""
        return None if self.silent or not ranks.is_main() else label
