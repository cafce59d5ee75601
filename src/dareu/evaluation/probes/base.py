"""What a probe gets and gives. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from dareu.data.corpus import Split
from dareu.errors import DareuError

if TYPE_CHECKING:
    from dareu.evaluation.asked_once import Known
    from dareu.evaluation.subject import Subject

Values = dict[str, float | None]  # figures of one sample


@dataclass(frozen=True)
class ProbeInput:
    """What every probe may use beside the model.

    `learning_rate`: of relearning and benign fine-tuning; that of the original fine-tuning is a strong attacker.
    `training_batch`: rows in one step of relearning. `known`: what the evaluated model answered before in this
    evaluation; None where nothing is kept.
    """

    split: Split
    seed: int = 0
    learning_rate: float = 1e-4
    training_batch: int = 8
    steps: tuple[int, ...] = (0, 5, 10, 20, 50)
    relearn_share: float = 0.1
    sample_count: int = 16
    temperatures: tuple[float, ...] = (0.8, 1.0)
    known: Known | None = None

    def asked(self, subject: Subject) -> Subject:
        """The evaluated model as it is, of which nothing is computed twice. Not for one that a probe has changed."""
        return subject if self.known is None else self.known.of(subject)


class ProbeResult(NamedTuple):
    """`samples`: for each forget sample, in the order of the split, its own values, None where one does not apply.
    `curves`: name → (x, y) points."""

    samples: list[Values]
    curves: dict[str, list[tuple[float, float]]] = {}


class Gap(DareuError):
    """A probe lacks what it needs. `str()`: what is missing, and how to make it."""


class Probe(NamedTuple):
    """A row of the table of probes.

    `run(subject, inputs)` gives a `ProbeResult`, or raises `Gap`. Its figures are in [0, 1] and best where the
    retrained model's are. `headline`: the one to show first, `measures`: what that one is.
    """

    title: str
    run: Callable[[Subject, ProbeInput], ProbeResult]
    headline: str
    measures: str
    note: str = ""


def mean_figures(samples: Sequence[Values]) -> dict[str, float]:
    """The mean of each figure over the samples that have it."""
    names = dict.fromkeys(name for one in samples for name in one)
    by_name: dict[str, list[float]] = {
        name: [v for one in samples if (v := one.get(name)) is not None and math.isfinite(v)]
        for name in names
    }
    return {name: fmean(values) for name, values in by_name.items() if values}


def needs_questions(inputs: ProbeInput, what: str) -> None:
    """Raise `Gap` for texts to complete, or for an empty forget set: there is no question to ask otherwise."""
    if inputs.split.task != "qa":
        raise Gap(
            f"{what} needs questions and answers; this corpus has texts to complete. Give data with a prompt column of "
            "questions (data.task=qa)."
        )
    needs_forget(inputs, what)


def needs_forget(inputs: ProbeInput, what: str) -> None:
    """Raise `Gap` where the forget set is empty."""
    if not inputs.split.forget:
        raise Gap(f"{what} needs forget samples; the forget set of this evaluation is empty.")
