"""From class probabilities to the figures that rewards and evaluation use; calibration. Numpy alone."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from dareu.errors import DataError, nearest


def owner_index(owners: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Column of each wanted owner.

    Raises:
        DataError: The attributor does not know one of them.
    """
    column = {owner: index for index, owner in enumerate(owners)}
    for owner in wanted:
        if owner not in column:
            raise DataError(f"The attributor does not know the owner '{owner}'.", nearest(str(owner), owners))
    return [column[owner] for owner in wanted]


def forget_mass(probs: np.ndarray, owners: Sequence[str], forget_owners: Sequence[str]) -> np.ndarray:
    """Σ_{j∈F} p(j|y): (..., C) → (...), in [0, 1]. DareU's attribution score, over the whole forget set."""
    columns = sorted(set(owner_index(owners, forget_owners)))
    mass: np.ndarray = np.asarray(probs)[..., columns].sum(axis=-1)
    return mass


def reattribution_shares(
    probs: np.ndarray, owners: Sequence[str], query_owners: Sequence[str], threshold: float = 0.9
) -> np.ndarray:
    """Which responses have p > `threshold` for one owner that is not the owner their query asks about: (B,) bool.

    `probs` is (B, C), `query_owners` has B names. The background class is no owner and never counts.
    """
    others = np.array(probs, dtype=float)[:, : len(owners)]
    if len(others) != len(query_owners):
        raise ValueError(f"{len(others)} rows of probabilities, {len(query_owners)} query owners")
    if not len(others):
        return np.zeros(0, dtype=bool)
    others[np.arange(len(others)), owner_index(owners, query_owners)] = 0.0
    confident: np.ndarray = others.max(axis=1) > threshold
    return confident


def fit_temperature(
    logits: np.ndarray, labels: np.ndarray, bounds: tuple[float, float] = (0.25, 10.0)
) -> float:
    """The T that minimises the mean negative log-likelihood of softmax(logits / T).

    `logits` (N, C), `labels` (N,) class numbers. T stays within `bounds`: where every label is predicted
    right the likelihood alone would send T to 0. No rows: 1.
    """
    scores = np.asarray(logits, dtype=float)
    if not len(scores):
        return 1.0

    def loss(log_t: float) -> float:
        return negative_log_likelihood(scores / math.exp(log_t), labels)

    low, high = (math.log(bound) for bound in bounds)
    return math.exp(
        float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    )


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of −ln softmax(logits)[label] over the rows, in nats, ≥ 0. `logits` (N, C), `labels` (N,)."""
    rows = np.arange(len(logits))
    return -float(log_softmax(np.asarray(logits, dtype=float), axis=1)[rows, labels].mean())


def expected_calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Σ_bins (n_bin / N) · |accuracy − mean confidence| over equal-width bins of the top probability.

    `probs` (N, C), `labels` (N,). In [0, 1], 0 is calibrated; NaN for no rows.
    """
    probs = np.asarray(probs, dtype=float)
    if not len(probs):
        return float("nan")
    confidence = probs.max(axis=1)
    right = (probs.argmax(axis=1) == np.asarray(labels)).astype(float)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(probs))
