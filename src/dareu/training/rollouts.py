"""Which prompts a batch of rollouts answers and how it is cut up; and what a method's step and the engine exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler

from dareu.config import DareUConfig
from dareu.models.seeds import same_state
from dareu.rewards.base import Rollouts
from dareu.runs.ranks import world_size
from dareu.training.common import rollout_batch
from dareu.training.samplers import RetainSampler


@dataclass(frozen=True)
class Plan:
    """Sizes: prompts in a batch of rollouts; parts of it that have updates of their own; rollouts in a micro-batch;
    micro-batches that each process has in an update; rollouts in a group of the engine; retain rows of an update.
    """

    prompts: int
    parts: int
    micro: int
    slices: int
    group: int
    retain: int

    @classmethod
    def of(cls, config: DareUConfig, prompts: int) -> Plan:
        """The plan for `prompts` prompts.

        Raises:
            ConfigError: Batch sizes do not fit.
        """
        per_batch, parts, micro = rollout_batch(config, prompts)
        rollouts, world = per_batch * config.num_generations, world_size()
        slices = rollouts // (parts * micro * world)
        retain = config.retain_batch_size or micro * slices * world
        group = config.num_generations
        if group < 2:  # TRL's groups have two members at least; with a critic nothing reads them
            group = next(g for g in range(2, rollouts + 1) if rollouts % g == 0)
        return cls(per_batch, parts, micro, slices, group, retain)


VLLM = {  # our key → TRL's
    "mode": "vllm_mode",
    "memory_share": "vllm_gpu_memory_utilization",
    "tensor_parallel": "vllm_tensor_parallel_size",
    "sleep": "vllm_enable_sleep_mode",
    "max_length": "vllm_max_model_length",
    "server_url": "vllm_server_base_url",
    "server_timeout": "vllm_server_timeout",
    "model_impl": "vllm_model_impl",
}


def allowed_tokens(policy: Any) -> list[int] | None:
    """The ids that a policy may sample: all but those of a padded vocabulary, which no token has. None: every id.

    `models.load` notes the others in the generation config, which vLLM does not read.
    """
    never = set(policy.generation_config.suppress_tokens or ())
    return (
        [i for i in range(policy.get_output_embeddings().weight.shape[0]) if i not in never]
        if never
        else None
    )


def engine_settings(
    config: DareUConfig, plan: Plan, max_new_tokens: int, allowed: Sequence[int] | None = None
) -> dict[str, Any]:
    """TRL's arguments for sampling and for the loss: the clipped surrogate over tokens, and nothing else.

    `allowed`: the ids that vLLM may sample; None for all.
    """
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
        **{VLLM[key]: value for key, value in config.vllm.model_dump().items()},
        "generation_kwargs": {"allowed_token_ids": list(allowed)} if config.use_vllm and allowed else None,
        # `models.load.checkpoint_activations` switches it on; TRL switches it off while it samples, and on again so.
        "gradient_checkpointing": False,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "shuffle_dataset": False,
    }


def dealt(batch: dict[str, Any], accelerator: Any, micro: int, pad: int) -> list[dict[str, Any]]:
    """This process's micro-batches of `micro` rollouts, out of those of all processes.

    They are shuffled as one process shuffles them, and each micro-batch goes to the next process, so that every update
    is on the rollouts that it would be on with one process. `batch`: tensors with a row for each of this process's
    rollouts; prompts are padded at their left, responses at their right, `pad` being the token for it.
    """

    def together(name: str, values: Tensor) -> Tensor:
        padding = {"pad_index": pad if name.endswith("_ids") else 0, "pad_first": name.startswith("prompt_")}
        wide = accelerator.pad_across_processes(values, dim=1, **padding) if values.dim() > 1 else values
        gathered: Tensor = accelerator.gather(wide)
        return gathered

    rows = {k: together(k, v) for k, v in batch.items() if isinstance(v, Tensor) and v.dim()}
    same_state("cpu")
    order = torch.randperm(len(rows["completion_ids"]))
    own = order.split(micro)[accelerator.process_index :: accelerator.num_processes]
    return [
        {name: rows[name][part] if name in rows else value for name, value in batch.items()} for part in own
    ]


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


@dataclass(frozen=True)
class RolloutBatch:
    """A new batch of rollouts and what policy and original say of it.

    Attributes:
        rollouts: Token ids and mask (B, T), texts, prompts.
        full: Prompts and responses, (B, P+T).
        attention: Their mask, (B, P+T).
        kl: KL(π ‖ π_N) at each response token, (B, T).
        original_logps: Temperature (1 by default) → the original's log-likelihood of each token, (B, T).
        anchor_kl: KL(π ‖ anchor) at each response token, (B, T); `kl` where the anchor is the original.
        anchor_logps: Like `original_logps`, of the anchor.
    """

    rollouts: Rollouts
    full: Tensor
    attention: Tensor
    kl: Tensor
    original_logps: Callable[..., Tensor]
    anchor_kl: Tensor
    anchor_logps: Callable[..., Tensor]


@dataclass(frozen=True)
class Update:
    """A micro-batch of an update.

    Attributes:
        surrogate: TRL's clipped surrogate, its share of the update's.
        share: This micro-batch's share of the update's response tokens, times the number of processes, over which
            gradients are averaged.
        retain_share: The same of the retain rows' tokens.
        logps: The policy's log-likelihoods at the temperature of sampling, (B, T).
        mask: 1 on response tokens, (B, T).
        tensors: What `Step.evaluate` returned, for these rollouts.
        values: The critic's values now, (B, T); None without a critic.
        distillation: KL(π_N ‖ π) on the update's retain rows, a scalar; None where the update has none.
    """

    surrogate: Tensor
    share: Tensor
    retain_share: float
    logps: Tensor
    mask: Tensor
    tensors: dict[str, Tensor]
    values: Callable[[], Tensor] | None
    distillation: Callable[[], Tensor] | None


class Engine(Protocol):
    """What a step may ask of the trainer that it runs in."""

    def advantages(
        self, dense: Tensor, level: bool, batch: RolloutBatch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rewards (B, T) → `advantages` and, with a critic, `returns` and `old_values`; and numbers to log."""

    def log_mean(self, **numbers: Tensor) -> None:
        """Log each scalar, the mean over processes."""

    def log_weighted(self, numbers: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Log each (mean, weight), weighted over processes; nothing where no weight is."""

    def check_stop(self, rollouts: Rollouts, kl: Tensor, nobody: Tensor | None) -> None:
        """Raise `StopTraining` where a stopping rule holds for this batch."""


class Step(Protocol):
    """A method's part of reinforcement: what a batch of rollouts is worth, and what an update minimises."""

    def evaluate(self, engine: Engine, batch: RolloutBatch) -> dict[str, Tensor]: ...

    def loss(self, engine: Engine, update: Update) -> Tensor: ...
