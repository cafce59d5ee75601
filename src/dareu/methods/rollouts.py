"""Which prompts a batch of rollouts answers, in which order."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch.utils.data import Sampler

from dareu.methods.retain import RetainSampler


class RolloutSampler(Sampler[int]):
    """Prompt indices for all batches of the run: seeded permutations of the prompts, each chunk repeated.

    A chunk of `prompts` indices appears `generations` times each, and the whole chunk once for each micro-batch of
    each update on it. The last chunk of an epoch is filled up from the next permutation, so no prompt is dropped.
    """

    def __init__(
        self, size: int, prompts: int, generations: int, repeats: int, epochs: int, seed: int
    ) -> None:
        self.walk: RetainSampler[int] = RetainSampler(list(range(size)), prompts, seed)
        self.chunks = math.ceil(size * epochs / prompts)
        self.generations, self.repeats, self.prompts = generations, repeats, prompts

    def __len__(self) -> int:
        return self.chunks * self.prompts * self.generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        for chunk in range(self.chunks):
            indices = [i for i in self.walk.batch(chunk) for _ in range(self.generations)]
            for _ in range(self.repeats):
                yield from indices
