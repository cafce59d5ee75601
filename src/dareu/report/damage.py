"""What was lost of what should stay, read from a run's results: beside the retrained model, and beside the original.

The original, too, has answers wrong that the retrained model has right: another training gives other mistakes. So a
loss is what the unlearned model has beyond the original's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dareu.report.figures import MODELS, dig, number, show_share

SETS = ("retain", "test")


@dataclass(frozen=True)
class Share:
    """A share of answers; `low` and `high` bound its 95 % interval and may be None."""

    value: float
    low: float | None
    high: float | None

    @property
    def ends(self) -> str:
        """ "14% to 35%"; empty without an interval."""
        if self.low is None or self.high is None:
            return ""
        return f"{show_share(self.low)} to {show_share(self.high)}"

    @property
    def shown(self) -> str:
        """ "23% (14% to 35%)"."""
        return f"{show_share(self.value)} ({self.ends})" if self.ends else show_share(self.value)


@dataclass(frozen=True)
class Damage:
    """Of one set: `lost`, the share that the retrained model has right and this one wrong; the same of the `original`;
    `beyond`: the difference of both on the same answers. The last two are None where there was no original. `right`:
    model → the share that it has right, in words; empty where it is not known.
    """

    of: str
    n: int | None
    lost: Share
    original: Share | None
    beyond: Share | None
    right: Mapping[str, str]

    @property
    def loss(self) -> Share:
        """What was lost by unlearning, as far as the run can say."""
        return self.beyond or self.lost

    @property
    def shown(self) -> str:
        """ "test 23% (14% to 35%; the original 7%)"."""
        return f"{self.of} {show_share(self.lost.value)}{self.beside('the original')}"

    def beside(self, original: str) -> str:
        """ " (14% to 35%; the original 7%)": the interval, and the share of the `original`, called so; may be empty."""
        own = f"{original} {show_share(self.original.value)}" if self.original else ""
        inside = "; ".join(filter(None, [self.lost.ends, own]))
        return f" ({inside})" if inside else ""


def damage_of(results: Mapping[str, Any], of: str) -> Damage | None:
    """The damage on the set `of`; None where the run does not have it."""
    entry = dig(results, "damage", of) or {}
    lost = _share(entry)
    if lost is None:
        return None
    known = {model: number(entry.get(f"right_{model}")) for model in MODELS}
    right = {model: "" if share is None else show_share(share) for model, share in known.items()}
    original, beyond = _share(entry.get("original")), _share(entry.get("beyond_original"))
    return Damage(of, entry.get("n"), lost, original, beyond, right)


def damages(results: Mapping[str, Any]) -> list[Damage]:
    """Of retain and test, as far as the run has them."""
    return [damage for of in SETS if (damage := damage_of(results, of)) is not None]


def _share(entry: Any) -> Share | None:
    value, low, high = (number(dig(entry, part)) for part in ("value", "low", "high"))
    return None if value is None else Share(value, low, high)
