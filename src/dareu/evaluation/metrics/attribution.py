"""Whose text an answer reads like, from the class probabilities of an attributor. NumPy alone."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dareu.attribution.score import forget_mass, reattribution_shares
from dareu.evaluation.metrics.base import Records, Values


class Attributions(NamedTuple):
    """An attributor's view of the answers: `probabilities(texts)` is (B, C), the columns are `owners`, then maybe a
    background class. `threshold`: from where on an answer counts as confidently attributed."""

    probabilities: Callable[[Sequence[str]], np.ndarray]
    owners: Sequence[str]
    forget_owners: Sequence[str]
    threshold: float


def attribution_mass(records: Records, name: str, **inputs: Attributions) -> Values:
    """Σ_{j∈F} p(j | answer), in [0, 1], by the attributor that the input `name` holds."""
    by = inputs[name]
    probs = by.probabilities([r["response"] for r in records])
    return [float(mass) for mass in forget_mass(probs, by.owners, by.forget_owners)]


def reattributed(records: Records, name: str, **inputs: Attributions) -> Values:
    """1 where the answer is attributed with confidence to one owner that the question is not about, else 0."""
    by = inputs[name]
    probs = by.probabilities([r["response"] for r in records])
    shares = reattribution_shares(probs, by.owners, [r["owner"] for r in records], by.threshold)
    return [float(share) for share in shares]
