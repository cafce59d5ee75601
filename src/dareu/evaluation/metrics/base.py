"""What a metric is: a function over records, what it needs, and how its figure is read. No torch here."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from dareu.config.tables import read_table

Record = Mapping[str, Any]
Records = Sequence[Record]
Values = list[float | None]
Direction = Literal["as retrained", "higher", "lower"]
SETS = ("forget", "retain", "test")
ANY = ("*",)  # every set that has records, those of other layouts (real_authors, …) included
SUITES = ("fast", "tofu", "muse", "privacy", "robustness", "full")

# Inputs that are no fields of the records → the reason where one is absent.
INPUTS: dict[str, str] = read_table("dareu.evaluation.metrics", "inputs.yaml")


def number(value: Any) -> float | None:
    """`value` as a finite float; None for what is missing, NaN, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


@dataclass(frozen=True)
class Metric:
    """One row of the registry.

    Attributes:
        name: the metric's name, once in the registry; also the field of the records that keeps its values.
        compute: a function whose arguments depend on `level`. "sample": the records of one set, and `needs` as
            keywords; returns a value or None for each record, in order, and the figure is the mean of their
            contributions over the records that have one. "set": the same arguments; returns one figure, or a dict of
            figures. "model": the summary of one model; returns one figure, which stands below `models.<model>`.
            "pair": the summaries of the unlearned and of the retrained model; returns one figure, at the top of the
            results. It raises `ValueError` or `DataError` where the figure cannot be computed.
        needs: fields that the records must have, and inputs by name (`INPUTS`), which `compute` gets as keyword
            arguments. What lacks one of them is a gap with the reason, never a silent null.
        sets: the sets of samples that it is computed on; `ANY` is each of them.
        section: where the figure stands below `models.<model>`; None: under the set's name. For a set other than
            forget the section is `<section>_<set>`.
        key: its name within the section; the metric's name unless given.
        range, better: the values that are possible, and which of them are good. "as retrained": the closer to the
            retrained model, the better.
        title, note: a column's title, and the definition in a sentence or two.
        short: the title for a narrow column, its lines parted by line breaks.
        contribution: (value, set) → what the sample adds to the mean; None: the value itself.
        others: of an area under a ROC curve: a function like `compute` that gives what each held-out sample adds to it,
            so that its interval counts their chance too.
        gap: why a sample has no value (for the reason beside a gap).
        knowledge: whether "knowledge left" is computed from it (sample metrics of the forget set).
        keep: whether the values are written into the records.
        suites: the suites of `evaluation=…` that have it; "fast" is part of every other one, "full" has all.
    """

    name: str
    compute: Callable[..., Any]
    needs: tuple[str, ...] = ()
    level: Literal["sample", "set", "model", "pair"] = "sample"
    sets: tuple[str, ...] = ANY
    section: str | None = None
    key: str = ""
    range: str = "0–1"
    better: Direction = "as retrained"
    title: str = ""
    note: str = ""
    short: str = ""
    contribution: Callable[[float, str], float] | None = None
    others: Callable[..., Values] | None = None
    gap: str = "it is not defined for them"
    knowledge: bool = False
    keep: bool = True
    suites: tuple[str, ...] = ("fast",)

    def __post_init__(self) -> None:
        """Fill in what follows from the name."""
        object.__setattr__(self, "key", self.key or self.name)
        object.__setattr__(self, "title", self.title or self.name.replace("_", " ").capitalize())
        object.__setattr__(self, "short", self.short or self.title.lower())

    def path(self, of: str) -> tuple[str, str]:
        """Section and key of the figure of set `of`."""
        if self.section is None:
            return of, self.key
        return (self.section if of == "forget" else f"{self.section}_{of}"), self.key

    def covers(self, of: str) -> bool:
        """Whether it is computed on set `of`."""
        return self.sets == ANY or of in self.sets

    def in_suite(self, suite: str) -> bool:
        """Whether the named suite has it."""
        return suite == "full" or "fast" in self.suites or suite in self.suites

    def reads(self, record: Record) -> bool:
        """Whether the record has every field that it needs."""
        return all(record.get(need) is not None for need in self.needs if need not in INPUTS)

    def given(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """What it gets of `inputs`, as keyword arguments; None where one is absent."""
        wanted = [need for need in self.needs if need in INPUTS]
        lacks = any(inputs.get(need) is None for need in wanted)
        return None if lacks else {need: inputs[need] for need in wanted}

    def contributions(self, values: Sequence[float | None], of: str) -> Values:
        """What each sample adds to the mean; None where it has no value."""
        change = self.contribution
        if change is None:
            return list(values)
        return [None if v is None else change(v, of) for v in values]


def lazily(path: str) -> Callable[..., Any]:
    """The function at `path` ("module:function", below this room), imported when it is called: for what needs torch."""
    module, _, name = path.partition(":")

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(f"dareu.evaluation.{module}"), name)(*args, **kwargs)

    return call


def of_field(field: str) -> Callable[[Records], Values]:
    """A sample metric that reads its values from a field of the records."""

    def values(records: Records) -> Values:
        return [record.get(field) for record in records]

    return values


def each(function: Callable[..., float | None], *fields: str) -> Callable[..., Values]:
    """A sample metric that calls `function` with these fields of each record; None where a field is None."""

    def values(records: Records) -> Values:
        rows = ([record.get(field) for field in fields] for record in records)
        found = [None if None in row else function(*row) for row in rows]
        return [None if value is None else float(value) for value in found]

    return values
