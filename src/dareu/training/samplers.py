"""Which rows a step sees, as functions of seed, step and process: nothing has to be saved. Random words."""

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from dareu.data.render import Encoded

T = TypeVar("T")


class Part(NamedTuple):
    """The rows `start`..`stop` of an update that has `of` rows: a micro-batch of one process."""

    start: int
    stop: int
    of: int


WHOLE = Part(0, 1, 1)


class RetainSampler(Generic[T]):
    """Walks through seeded permutations of `rows`, one after another.

    Update u takes the positions [u·b, (u + 1)·b) of that endless walk, and of these a micro-batch takes as large a
    part as it has in the update: however an update is cut up, it sees the same rows, and processes never share one.
    A resumed run sees what an undisturbed one would have seen.
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

    def numbers(self, update: int, part: Part = WHOLE) -> list[int]:
        """Which rows `part` of an update has: none where it is too small for one."""
        start, stop = (-(-edge * self.batch_size // part.of) for edge in (part.start, part.stop))
        first = update * self.batch_size
        places = (divmod(place, len(self.rows)) for place in range(first + start, first + stop))
        return [self._permutation(lap)[offset] for lap, offset in places]

    def batch(self, update: int, part: Part = WHOLE) -> list[T]:
        """The rows of `part` of an update. Where it has none the update's first one, whose `token_share` is 0, since
        all processes have to take as many passes."""
        return [
            self.rows[number]
            for number in self.numbers(update, part) or self.numbers(update, Part(0, 1, part.of))
        ]


def token_share(sampler: RetainSampler[Encoded], update: int, part: Part, rows: int | None = None) -> float:
    """The share that `part` has in an update's response tokens; `rows`: those the update has, if fewer than `of`."""

    def tokens(some: Part) -> int:
        return sum(len(sampler.rows[i].response_ids) for i in sampler.numbers(update, some))

    return tokens(part) / max(tokens(Part(0, part.of if rows is None else rows, part.of)), 1)


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
    draw = random.Random(f"{seed}/scrambled")
    pool = [token for row in rows for token in row.response_ids[:-1]]
    return [
        Encoded(row.prompt_ids, [*draw.choices(pool, k=len(row.response_ids) - 1), row.response_ids[-1]])
        for row in rows
        if len(row.response_ids) > 1
    ]
