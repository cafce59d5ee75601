"""What a person sees while stages run: one line a stage on stderr, tables on stdout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console


@dataclass
class Talk:
    """Tells of stages; silent for use as a library."""

    silent: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    def say(self, text: str) -> None:
        if not self.silent:
            self.console.print(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A line when the stage ends, with its seconds."""
        start = time.perf_counter()
        yield
        self.say(f"[green]✓[/] {name} [dim]{time.perf_counter() - start:.1f} s[/]")

    def bar(self, name: str) -> str | None:
        """The label of a progress bar, or None where nobody watches."""
        return None if self.silent else name
