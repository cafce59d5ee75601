"""Bootstrap intervals over samples. Pure, seeded; NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


@lru_cache(maxsize=32)
def _weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, n): how often each sample is drawn, over n."""
    rng = np.random.default_rng([seed, n])
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def resampled_means(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means over samples drawn with replacement: (n,) → (resamples,).

    The same samples are drawn in all calls with the same n and seed: figures of two models are paired.
    """
    means: np.ndarray = _weights(len(values), resamples, seed) @ values
    return means


def percentiles(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The interval that holds `level` of the draws (the percentile bootstrap; Efron 1979)."""
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_mean(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean over samples. `ValueError` for no values."""
    if not len(values):
        raise ValueError("no values to resample")
    return percentiles(resampled_means(np.asarray(values, dtype=float), resamples, seed))
