"""A table for a console of any width."""

from copy import copy
from dataclasses import replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table


class Stacked(Table):
    """A table in parts, one below the other, where its columns do not fit side by side: each has the first column.

    The others are as wide as what stands in them. Side by side, the first one folds down to its `min_width` if it has
    one; in parts, to half of the console.
    """

    def add_column(self, *args: Any, **options: Any) -> None:
        defaults: dict[str, Any] = {"no_wrap": bool(self.columns), "overflow": "fold"}
        super().add_column(*args, **defaults | options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = self.columns[0].min_width if self.columns else None
        if len(self.columns) < 3 or len(self._groups(console, options, least)) == 1:
            yield from super().__rich_console__(console, options)
            return
        first = self.columns[0]
        natural = self._width(console, options, [first])
        least = min(natural, max(first.min_width or 0, options.max_width // 2))
        groups = self._groups(console, options, least)
        for i, group in enumerate(groups):
            part = self._with([first, *group])
            part.title, part.caption = self.title if i == 0 else None, None
            yield from Table.__rich_console__(part, console, options)
            yield "" if i + 1 < len(groups) else self.caption or ""

    def _groups(self, console: Console, options: ConsoleOptions, least: int | None) -> list[list[Column]]:
        """The columns that fit side by side with the first one, which is `least` wide (None: as wide as its cells)."""
        first = replace(self.columns[0], width=least)
        groups: list[list[Column]] = [[]]
        for column in self.columns[1:]:
            if groups[-1] and self._width(console, options, [first, *groups[-1], column]) > options.max_width:
                groups.append([])
            groups[-1].append(column)
        return groups

    def _width(self, console: Console, options: ConsoleOptions, columns: list[Column]) -> int:
        return self._with(columns).__rich_measure__(console, options.update(width=10_000)).maximum

    def _with(self, columns: list[Column]) -> "Stacked":
        part = copy(self)
        part.columns = [replace(column, _index=i) for i, column in enumerate(columns)]
        return part
