"""What early stopping reads of a batch of rollouts: held-out attribution, and the health of the text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dareu.attribution.base import Attributor
from dareu.attribution.name_masking import NameMasker
from dareu.attribution.score import forget_mass
from dareu.config import DareUConfig
from dareu.data.corpus import Sample
from dareu.evaluation.metrics.text_health import broken_shares

NO_WRONG_ANSWERS = 0.05  # where to stop where the data has no wrong answers to measure


class HealthMonitor:
    """Health of the text alone, for methods that read no attributor."""

    def __call__(
        self, texts: Sequence[str], finished: Sequence[bool], owners: Sequence[str], queries: Sequence[str]
    ) -> dict[str, float]:
        return broken_shares(texts, finished)


class StoppingMonitor:
    """The stopping attributor's forget mass on a batch of rollouts, and the health of their text."""

    def __init__(
        self, attributor: Attributor, forget_owners: Sequence[str], masker: NameMasker | None = None
    ) -> None:
        self.attributor, self.forget_owners, self.masker = attributor, list(forget_owners), masker

    def level(self, texts: Sequence[str], queries: Sequence[str]) -> float:
        """Mean forget mass of `texts`, answers to `queries`, in [0, 1]."""
        if self.masker is not None:
            texts = [self.masker.text(query, text) for query, text in zip(queries, texts, strict=True)]
        found = self.attributor.probabilities(list(texts))
        return float(np.mean(forget_mass(found, self.attributor.owners, self.forget_owners)))

    def __call__(
        self, texts: Sequence[str], finished: Sequence[bool], owners: Sequence[str], queries: Sequence[str]
    ) -> dict[str, float]:
        return {"attribution": self.level(texts, queries), **broken_shares(texts, finished)}


def with_level(method: DareUConfig, monitor: StoppingMonitor, forget: Sequence[Sample]) -> DareUConfig:
    """`stop.attribution` as a number.

    A wrong answer to a forget query is what a model that never saw the owner would give: it has the question's words
    right, the name among them, and the facts wrong. What such answers score estimates the retrained model's level.
    """
    if method.stop.attribution != "wrong_answers":
        return method
    wrong = [(text, sample.prompt) for sample in forget for text in sample.wrong_responses]
    level = monitor.level(*zip(*wrong, strict=True)) if wrong else NO_WRONG_ANSWERS
    return method.model_copy(update={"stop": method.stop.model_copy(update={"attribution": level})})
