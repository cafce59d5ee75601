"""Temperature scaling and calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax


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
