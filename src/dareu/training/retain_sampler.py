"""Which retain samples a step sees: a pure function of seed, step and rank, so that nothing has to be saved."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Generic, TypeVar

T = TypeVar("T")


class RetainSampler(Generic[T]):
    """Walks through seeded permutations of `rows`, one after another.

    Batch k on rank r of w takes the positions [(k·w + r)·b, (k·w + r + 1)·b) of that endless walk: ranks never
    share a batch, and a resumed run sees what an undisturbed one would have seen.
    """

    def __init__(self, rows: Sequence[T], batch_size: int, seed: int) -> None:
        if not rows:
            raise ValueError("the retain set is empty")
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self._permutation = lru_cache(maxsize=2)(self._make_permutation)

    def _make_permutation(self, lap: int) -> list[int]:
        order = list(range(len(self.rows)))
        random.Random(f"{self.seed}/{lap}").shuffle(order)
        return order

    def batch(self, index: int, rank: int = 0, world: int = 1) -> list[T]:
        """The rows of batch `index` on `rank`."""
        start = (index * world + rank) * self.batch_size
        picked = []
        for position in range(start, start + self.batch_size):
            lap, offset = divmod(position, len(self.rows))
            picked.append(self.rows[self._permutation(lap)[offset]])
        return picked
