"""Two shares beside each other: the interval of their difference. Pure."""

from __future__ import annotations

import math

Z = 1.959964  # 95 %


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `n` answers; within 0 and 1."""
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    centre, scale = share + Z * Z / (2 * n), 1 + Z * Z / n
    return (centre - spread) / scale, (centre + spread) / scale


def difference(ours: float, n: int, theirs: float, m: int) -> tuple[float, float]:
    """95 % interval of `ours − theirs`, shares of `n` and `m` answers (Newcombe 1998, method 10)."""
    low, high = wilson(ours, n)
    their_low, their_high = wilson(theirs, m)
    return (
        ours - theirs - math.hypot(ours - low, their_high - theirs),
        ours - theirs + math.hypot(high - ours, theirs - their_low),
    )
