"""Knowledge left of a run, read from its results: one row a metric, and which rows a verdict may rest on.

`k = (unlearned − retrained) / (original − retrained)`: 1 as the original model, 0 as the retrained one, below 0 further
from the original than the retrained model is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dareu.evaluation.metrics.intervals import is_wide
from dareu.evaluation.metrics.registry import registry
from dareu.report.figures import dig, number, show

# The drawing's axis; what lies outside is drawn at its end.
AXIS = (-0.5, 1.25)
# Fields of the records by which a metric belongs to a group.
LIKELIHOODS = {"nll", "wrong_nlls", "hits"}
ANSWERS = {"response", "sampled", "verbmem", "knowmem", "attribution", "attribution_heldout"}


@dataclass(frozen=True)
class Left:
    """Knowledge left by one metric; `low` and `high` bound its 95 % interval and may be None."""

    metric: str
    title: str
    value: float
    low: float | None
    high: float | None
    note: str = ""

    @property
    def above(self) -> bool:
        """The whole interval lies above 0 as it is shown; without an interval nothing is known."""
        return self.low is not None and round(self.low, 2) > 0

    @property
    def below(self) -> bool:
        """The whole interval lies below 0 as it is shown."""
        return self.high is not None and round(self.high, 2) < 0

    @property
    def unknown(self) -> bool:
        """There is no interval."""
        return self.low is None or self.high is None

    @property
    def wide(self) -> bool:
        """The interval is missing, or wider than the distance between the retrained and the original model."""
        return is_wide(self.low, self.high)

    @property
    def sure(self) -> float:
        """What a headline may say: the value, or the end of a wide interval that is nearer to 0."""
        if not self.wide:
            return self.value
        if self.above and self.low is not None:
            return self.low
        return self.high if self.below and self.high is not None else 0.0

    @property
    def cut(self) -> str:
        """At which ends the interval goes on beyond the drawing's axis: "low", "high", both or none."""
        low = self.low is not None and self.low < AXIS[0]
        high = self.high is not None and self.high > AXIS[1]
        return " ".join(["low"] * low + ["high"] * high)

    @property
    def outside(self) -> bool:
        """The value lies beyond the drawing's axis."""
        return not AXIS[0] <= self.value <= AXIS[1]

    @property
    def said(self) -> str:
        """What the interval says, in words."""
        if self.unknown:
            return "no interval, so nothing follows"
        if self.above:
            return "knowledge left"
        if self.below:
            return "further from the original than the retrained model"
        return "the interval is wider than 1, so nothing follows" if self.wide else "no difference seen"

    @property
    def shown(self) -> str:
        """ ".42 (.30 to .55)"."""
        if self.low is None or self.high is None:
            return f"{show(self.value, 2)} (no interval)"
        return f"{show(self.value, 2)} ({show(self.low, 2)} to {show(self.high, 2)})"


def knowledge_left(results: Mapping[str, Any]) -> list[Left]:
    """The metrics that can tell, those with most knowledge left first."""
    rows = []
    for name, entry in (results.get("knowledge_left") or {}).items():
        value, low, high = (number(entry.get(part)) for part in ("value", "low", "high"))
        if value is not None:
            rows.append(Left(name, title(name), value, low, high, note(name)))
    return sorted(rows, key=lambda one: -one.value)


def worst(results: Mapping[str, Any]) -> Left | None:
    """The metric with the largest |k|, as the results name it; one with an interval of at most 1 where there is any."""
    name = dig(results, "knowledge_left_worst", "metric")
    return next((one for one in knowledge_left(results) if one.metric == name), None)


def set_aside(results: Mapping[str, Any]) -> list[Left]:
    """Metrics that may not be the worst, for their interval is wider than 1 or missing."""
    most = worst(results)
    return [] if most is None or most.wide else [one for one in knowledge_left(results) if one.wide]


def title(metric: str) -> str:
    """The metric's title by the registry, else its name in words."""
    known = registry().get(metric)
    return known.title if known else metric.replace("_", " ").capitalize()


def note(metric: str) -> str:
    """The metric's definition by the registry; empty for one that it does not have."""
    known = registry().get(metric)
    return known.note if known else ""


def group(metric: str) -> str:
    """What the metric reads: "answers", "likelihoods", "membership attacks" or "probes"; empty for an unknown one."""
    known = registry().get(metric)
    if known is None:
        return ""
    if known.section == "membership":
        return "membership attacks"
    if LIKELIHOODS & set(known.needs):
        return "likelihoods"
    return "answers" if ANSWERS & set(known.needs) else "probes"


def by_group(left: Sequence[Left]) -> dict[str, float]:
    """Group → the most knowledge left by its metrics, as far as intervals show it; 0 where none lies above 0."""
    most: dict[str, float] = {}
    for one in left:
        if not one.unknown and (name := group(one.metric)):
            most[name] = max(most.get(name, 0.0), one.sure if one.above else 0.0)
    return most


def place(k: float) -> float:
    """Position of `k` on the drawing's axis, in per cent of its length; 0 to 100."""
    low, high = AXIS
    return round(100 * (min(max(k, low), high) - low) / (high - low), 2)


def untold(results: Mapping[str, Any]) -> list[str]:
    """Titles of the metrics that cannot tell the original from the retrained model on this data."""
    return [
        title(name)
        for name, entry in (results.get("knowledge_left") or {}).items()
        if number(entry.get("value")) is None
    ]
