"""Which other response a forget row is paired with: a function of seed, row and epoch, so that nothing is saved."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache

from dareu.data.render import Encoded


class PairSampler:
    """`others[i]` are the candidates for forget row i; each epoch it takes the next, in a seeded order of its own.

    A row with n candidates meets each of them once in n epochs. Processes and resumed runs agree.
    """

    def __init__(self, others: Sequence[Sequence[Encoded]], seed: int) -> None:
        if not all(others):
            raise ValueError("a forget row has no other response")
        self.others, self.seed = others, seed
        self._order = lru_cache(maxsize=None)(self._make_order)

    def _make_order(self, row: int) -> list[int]:
        count = len(self.others[row])
        return random.Random(f"{self.seed}/{row}").sample(range(count), count)

    def batch(self, rows: Iterable[int], epoch: int) -> list[Encoded]:
        """The other responses of forget rows `rows` in `epoch`."""
        picked = []
        for row in rows:
            order = self._order(row)
            picked.append(self.others[row][order[epoch % len(order)]])
        return picked
