"""Which rows a step sees, as functions of seed, step and process: nothing has to be saved. Random words."""

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import Generic, TypeVar

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

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


class ByLength(Sampler[int]):
    """Row numbers, an order of its own for each epoch: a function of seed and epoch, so that a run can resume.

    Args:
        lengths: tokens of each row.
        batch: rows of an update, over all micro-batches and processes.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = list(lengths), batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order comes next; the data loader calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch, generator=generator))


def scrambled(rows: Sequence[Encoded], seed: int) -> list[Encoded]:
    """The rows' prompts, each with an answer as long as its own of tokens drawn from all answers; endings stay.

    A retain set says nothing of what the model knows beside it, and changed weights damage that first. Held to the
    original's distributions on contexts that no one writes, the weights keep more of it; text that the original samples
    was no better (docs/dev/log.md).
    """
    draw = Random(f"{seed}/scrambled")
    pool = [token for row in rows for token in row.response_ids[:-1]]
    return [
        Encoded(row.prompt_ids, [*draw.choices(pool, k=len(row.response_ids) - 1), row.response_ids[-1]])
        for row in rows
        if len(row.response_ids) > 1
    ]
