"""95 % intervals over samples: the bootstrap for means, Wilson's for shares. Pure, seeded; NumPy alone."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
Z = 1.959964  # 95 %
# A resampled mean stays between the smallest and the largest of n values, and these lie on both sides of the median
# with probability 1 − 2^(1 − n), whatever the distribution: .9375 for 5 values, .96875 for 6. From fewer, no bootstrap
# can have 95 %.
FEWEST = 6
TOO_FEW = f"no interval from fewer than {FEWEST} samples"
TOO_FEW_OTHERS = f"no interval from fewer than {FEWEST} held-out samples"
CONSTANT = "no interval: all samples have the same value, so resampling says nothing"


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


def mean_draws(values: np.ndarray, stream: int = 0, seed: int = 0) -> np.ndarray:
    """`resampled_means`; where all values are 0, or all 1, draws from Jeffreys' posterior of a share instead.

    Resampling 100 wrong answers gives 0 each time, although the share behind them may well be .02: Beta(s + ½, n − s +
    ½) for s of n (Brown, Cai and DasGupta 2001). Draws of two such models are independent if their streams differ.
    """
    n, first = len(values), float(values[0])
    if first in (0.0, 1.0) and (values == first).all():
        rng = np.random.default_rng([seed, n, stream])
        return rng.beta(first * n + 0.5, (1 - first) * n + 0.5, size=RESAMPLES)
    return resampled_means(values, seed=seed)


def auc_draws(placements: np.ndarray, others: np.ndarray, stream: int = 0) -> np.ndarray:
    """Draws of an area under a ROC curve, both of its samples drawn anew.

    Args:
        placements: for each forget sample the share of held-out samples below it; their mean is the area.
        others: for each held-out sample the share of forget samples above it; the same mean. The area is, to first
            order, the sum of both means less the area itself (DeLong et al. 1988).
    """
    ours, theirs = mean_draws(placements, stream), mean_draws(others, stream, seed=1)
    return np.clip(ours + theirs - others.mean(), 0.0, 1.0)


def percentiles(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The interval that holds `level` of the draws (the percentile bootstrap; Efron 1979)."""
    tail = 50 * (1 - level)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def too_few(values: int, others: int | None = None) -> str | None:
    """Why so many samples, and held-out samples of an area under a ROC curve, have no interval; None: they have one."""
    if values < FEWEST:
        return TOO_FEW
    return TOO_FEW_OTHERS if others is not None and others < FEWEST else None


def mean_interval(
    values: Sequence[float], others: Sequence[float] | None = None
) -> tuple[float, float] | str:
    """95 % interval of a mean over samples, or why there is none.

    Wilson's where every value is 0 or 1 (a share), else the bootstrap's.

    Args:
        others: of an area under a ROC curve, what each held-out sample adds (`auc_draws`).

    Raises:
        ValueError: for no values.
    """
    if not len(values):
        raise ValueError("no values to resample")
    if few := too_few(len(values), None if others is None else len(others)):
        return few
    row = np.asarray(values, dtype=float)
    if others is not None:
        return percentiles(auc_draws(row, np.asarray(others, dtype=float)))
    if np.isin(row, (0.0, 1.0)).all():
        return wilson(float(row.mean()), len(row))
    return CONSTANT if (row == row[0]).all() else percentiles(resampled_means(row))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `n` answers; within 0 and 1."""
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    centre, scale = share + Z * Z / (2 * n), 1 + Z * Z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def difference(ours: float, n: int, theirs: float, m: int) -> tuple[float, float]:
    """95 % interval of `ours − theirs`, shares of `n` and `m` answers (Newcombe 1998, method 10)."""
    low, high = wilson(ours, n)
    their_low, their_high = wilson(theirs, m)
    return (
        ours - theirs - math.hypot(ours - low, their_high - theirs),
        ours - theirs + math.hypot(high - ours, theirs - their_low),
    )


def paired_difference(here: int, there: int, n: int) -> tuple[float, float]:
    """95 % interval of `(here − there) / n`: so many of `n` answers count in the first and in the second model alone.

    Half an answer is added to each of the four cells (Agresti and Min 2005), so that equal models have an interval too.
    """
    more, less, size = here + 0.5, there + 0.5, n + 2
    middle = (more - less) / size
    spread = Z * math.sqrt(more + less - (more - less) ** 2 / size) / size
    return max(-1.0, middle - spread), min(1.0, middle + spread)


def is_wide(low: float | None, high: float | None) -> bool:
    """Whether a k has no interval, or one wider than the distance from the retrained model to the original (1)."""
    return low is None or high is None or high - low > 1
