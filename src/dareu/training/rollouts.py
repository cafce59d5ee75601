"""Which prompts a batch of rollouts answers, in which order, and how the batch is cut up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Sampler

from dareu.config import DareUConfig
from dareu.training.common import process_count, rollout_batch
from dareu.training.retain_sampler import RetainSampler


@dataclass(frozen=True)
class Plan:
    """Sizes: prompts in a batch of rollouts; parts of it that have updates of their own; rollouts in a micro-batch;
    micro-batches that each process has in an update; rollouts in a group of the engine; retain rows in a micro-batch.
    """

    prompts: int
    parts: int
    micro: int
    slices: int
    group: int
    retain: int

    @classmethod
    def of(cls, config: DareUConfig, prompts: int) -> Plan:
        """The plan for `prompts` prompts. `ConfigError` for batch sizes that do not fit."""
        per_batch, parts, micro = rollout_batch(config, prompts)
        rollouts, world = per_batch * config.num_generations, process_count()
        slices = rollouts // (parts * micro * world)
        retain = -(-config.retain_batch_size // (slices * world)) if config.retain_batch_size else micro
        group = config.num_generations
        if group < 2:  # TRL's groups have two members at least; with a critic nothing reads them
            group = next(g for g in range(2, rollouts + 1) if rollouts % g == 0)
        return cls(per_batch, parts, micro, slices, group, retain)


def engine_settings(config: DareUConfig, plan: Plan, max_new_tokens: int) -> dict[str, Any]:
    """What TRL is told of sampling and of the loss: the clipped surrogate over tokens, and nothing else."""
    return {
        "steps_per_generation": plan.slices * plan.parts,
        "num_iterations": config.updates_per_batch,
        "num_generations": plan.group,
        "max_completion_length": max_new_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": 0,
        "beta": 0.0,
        "epsilon": config.clip,
        "loss_type": "bnpo",
        "scale_rewards": "none",
        "importance_sampling_level": "token",
        "entropy_coef": config.entropy_coef,
        "disable_dropout": True,  # so that the ratio to π_old is 1 before the first update
        "use_vllm": config.use_vllm,
        "gradient_checkpointing": False,
        "shuffle_dataset": False,
    }


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
