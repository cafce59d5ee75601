"""Which retain samples a step sees: a pure function of seed, step and rank, so that nothing has to be saved."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from dareu.data.render import Encoded

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

    def numbers(self, index: int, rank: int = 0, world: int = 1) -> list[int]:
        """Which rows batch `index` on `rank` has."""
        start = (index * world + rank) * self.batch_size
        places = (divmod(place, len(self.rows)) for place in range(start, start + self.batch_size))
        return [self._permutation(lap)[offset] for lap, offset in places]

    def batch(self, index: int, rank: int = 0, world: int = 1) -> list[T]:
        """The rows of batch `index` on `rank`."""
        return [self.rows[number] for number in self.numbers(index, rank, world)]


def token_share(sampler: RetainSampler[Encoded], index: int, update: range, rank: int, world: int) -> float:
    """The part of batch `index` on `rank` in an update's response tokens; `update`: its batches, of all ranks."""

    def tokens(batch: int, of_rank: int) -> int:
        return sum(len(sampler.rows[i].response_ids) for i in sampler.numbers(batch, of_rank, world))

    total = sum(tokens(batch, of_rank) for batch in update for of_rank in range(world))
    return tokens(index, rank) / max(total, 1)
