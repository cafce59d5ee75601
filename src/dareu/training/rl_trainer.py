"""Reinforcement on TRL's GRPOTrainer: the only file that imports TRL (pinned to one minor release).

What TRL keeps: sampling, the clipped surrogate (`loss_type="bnpo"`, token-level ratios, `beta=0`), accumulation,
checkpoints, logging. What is added here: dense rewards, a critic or a baseline over the rollouts of a prompt, returns
and advantages, distillation on the retain set, early stopping. What a batch of rollouts is worth and
what an update minimises is the method's (`Step`); all mathematics lives in pure functions (`rewards`, `losses`).
Left out: TRL's own reward normalisation and its KL term (which reloads the reference model by name).
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from trl import GRPOConfig, GRPOTrainer

from dareu.config import DareUConfig
from dareu.data.render import Encoded
from dareu.models.load import as_original
from dareu.models.logprobs import (
    completion_batch,
    completion_logits,
    completion_logprobs,
    kl_divergence,
    logits_of_both,
    masked_mean,
    picked_logprobs,
    response_logits,
    spread,
    to_batch,
)
from dareu.models.merge import merged
from dareu.models.processes import connect
from dareu.models.seeds import one_stream
from dareu.rewards.base import Prompt, Rollouts
from dareu.training.advantages import Estimator, gold_rows, importance_weighted
from dareu.training.anchor import CounterfactualAnchor
from dareu.training.common import (
    Bookkeeping,
    Work,
    non_finite,
    run_trainer,
    trainer_arguments,
)
from dareu.training.critic import Critic
from dareu.training.early_stopping import GoodWeights, Monitor, StopRules, StopTraining
from dareu.training.mixins import RolloutLog, WholeAdapters
from dareu.training.rollouts import (
    Plan,
    RolloutBatch,
    RolloutSampler,
    Step,
    Update,
    allowed_tokens,
    dealt,
    engine_settings,
)
from dareu.training.samplers import Part, RetainSampler, token_share


@dataclass
class Outcome:
    """How it ended."""

    updates: int
    stopped: str | None


class RLTrainer(WholeAdapters, RolloutLog, GRPOTrainer):
    """PPO with a critic, or with a baseline over the rollouts of a prompt, and distillation."""

    def __init__(
        self,
        *,
        config: DareUConfig,
        prompts: Sequence[Prompt],
        step: Step,
        monitor: Monitor | None,
        critic: Critic | None,
        reference: Any,
        retain_sampler: RetainSampler[Encoded],
        good_weights: GoodWeights,
        sampler: RolloutSampler,
        anchor: CounterfactualAnchor | None,
        **kwargs: Any,
    ) -> None:
        self.method, self.step, self.prompts = config, step, prompts
        self.monitor, self.critic = monitor, critic
        self.reference, self.retain_sampler = reference, retain_sampler
        self.good_weights, self.rollout_sampler = good_weights, sampler
        self.anchor = anchor
        self.stopped: str | None = None
        self._asked: list[Prompt] = []  # of the rollouts under way
        self._logps: Any = None  # of the forward pass under way
        self._buffered_inputs: Any = None  # micro-batches of the rollouts under way
        # The policy's logits of new rollouts, where TRL has just asked for them.
        self._seen: list[Tensor] = []
        self._retained: dict[str, Tensor] | None = None  # the retain rows of the update under way
        # The policy's logits of these, where its pass on rollouts had room.
        self._beside: Tensor | None = None
        self.rules = StopRules(config.stop)
        super().__init__(reward_funcs=[self.sequence_reward], **kwargs)
        # The loss that balances a mixture's experts is no part of any method; TRL adds it in silence.
        self.aux_loss_enabled = False
        # TRL patches the policy's forward on the instance; the reference was copied before and keeps its own.
        if self.critic is not None:
            self.critic.to(self.accelerator.device)
        self.estimator = Estimator(config, critic, self.accelerator)

    # --- rollouts ---------------------------------------------------------------------------------------------

    def sequence_reward(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """TRL calls a reward for each response; ours replaces it."""
        return [0.0] * len(prompts)

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        return self.rollout_sampler

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # Prompts are rendered already, special tokens included (data/render.py).
        return self.processing_class(text=prompts, add_special_tokens=False)["input_ids"], None, {}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        policy = self.accelerator.unwrap_model(self.model)
        merges = self.method.merge_rollouts and not self.use_vllm
        stream = nullcontext() if self.use_vllm else one_stream(self.model.device)
        with merged(policy) if merges else nullcontext(), stream:
            ids, logprobs = super()._generate_single_turn(*args, **kwargs)
        if self.method.offpolicy:
            gold = gold_rows(self._asked, self.method.offpolicy)
            rows = zip(ids, self._asked, gold, strict=True)
            ids = [list(prompt.answer_ids) if of_gold else own for own, prompt, of_gold in rows]
        return ids, logprobs

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if self.accelerator.num_processes == 1 or not self.model.training:
            return super()._prepare_inputs(generation_batch)
        # TRL shuffles the rollouts of a process among themselves.
        count = self.args.steps_per_generation
        if self._step % (count * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            pad, micro = self.processing_class.pad_token_id, self.args.per_device_train_batch_size
            self._buffered_inputs = dealt(batch, self.accelerator, micro, pad)
        return self._buffered_inputs[self._step % count]

    @torch.no_grad()
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._seen = []
        self._asked = [self.prompts[row["index"]] for row in inputs]
        batch = super()._generate_and_score_completions(inputs)
        for name in [n for n in self._metrics["train"] if "reward" in n]:  # of `sequence_reward`: all zero
            del self._metrics["train"][name]
        ids, mask = batch["completion_ids"], batch["completion_mask"]
        full, attention, length = self._concatenate(batch)
        policy = self.accelerator.unwrap_model(self.model)
        gold = torch.tensor(gold_rows(self._asked, self.method.offpolicy), device=ids.device)
        rollouts = Rollouts(
            ids,
            mask,
            torch.isin(ids, torch.tensor(self.eos_token_ids, device=ids.device)).any(1),
            self.processing_class.batch_decode(ids, skip_special_tokens=True),
            self._asked,
            gold if self.method.offpolicy else None,
        )
        with as_original(policy, self.reference) as original:
            frozen, targets, counted = completion_logits(original, full, attention, length)
            anchored = self.anchor(original, rollouts, frozen) if self.anchor else frozen
        if self._seen:
            logits, self._seen = torch.cat(self._seen), []
        else:
            logits, _, _ = completion_logits(policy, full, attention, length)
        kl = spread(kl_divergence(logits, frozen), counted)
        anchor_kl = spread(kl_divergence(logits, anchored), counted) if self.anchor else kl

        def logps_of(model_logits: Tensor, temperature: float = 1.0) -> Tensor:
            scaled = model_logits if temperature == 1.0 else model_logits.float() / temperature
            return picked_logprobs(scaled, targets, counted)

        batch |= self.step.evaluate(
            self,
            RolloutBatch(
                rollouts,
                full,
                attention,
                kl,
                partial(logps_of, frozen),
                anchor_kl,
                partial(logps_of, anchored),
            ),
        )
        if "old_per_token_logps" not in batch:  # TRL leaves it out where generation and update are aligned
            scaled = logits.float() / self.temperature  # of a pass that was made already
            batch["old_per_token_logps"] = picked_logprobs(scaled, targets, counted)
        if self.method.offpolicy:
            old = batch["old_per_token_logps"]
            batch["advantages"] = importance_weighted(batch["advantages"], old, gold)
        return batch

    def advantages(
        self, dense: Tensor, level: bool, batch: RolloutBatch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `Estimator`."""
        return self.estimator(dense, level, batch.rollouts.mask, batch.full, batch.attention)

    @staticmethod
    def _concatenate(batch: dict[str, Any]) -> tuple[Tensor, Tensor, int]:
        full = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        return full, attention, batch["completion_ids"].size(1)

    # --- updates ----------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        distils = self.method.distill and self.state.global_step % self.method.distill_every == 0
        self._retained = self._retain_rows() if distils else None
        micro_batches = self.current_gradient_accumulation_steps if self.model.training else 1
        share, retain_share = self._shares(inputs["completion_mask"])
        # TRL takes the mean over each micro-batch's tokens and divides by their number, whatever their lengths.
        surrogate = super()._compute_loss(model, inputs) * (micro_batches * share)
        logps, self._logps = self._logps, None
        mask, retained, critic = inputs["completion_mask"], self._retained, self.critic
        log_ratio = logps.detach() - inputs["old_per_token_logps"]
        self.log_mean(kl_old=masked_mean(log_ratio.exp() - 1 - log_ratio, mask))

        def values() -> Tensor:
            assert critic is not None
            critic.eval()  # dropout would be noise in values that are regressed on one batch
            estimates: Tensor = critic(*self._concatenate(inputs))
            return estimates

        update = Update(
            surrogate,
            share,
            retain_share,
            logps,
            mask,
            inputs,
            values if critic is not None else None,
            (lambda: self._distillation(model, retained)) if retained is not None else None,
        )
        total = self.step.loss(self, update)
        if not torch.isfinite(total.detach()):
            raise non_finite(self.state.global_step)
        return total

    def _shares(self, mask: Tensor) -> tuple[Tensor, float]:
        """Share of this micro-batch in the response tokens of the whole update, and that of its retain rows.

        Times the number of processes, since gradients are averaged over them: the sum over all micro-batches of all
        processes, divided by their number, is 1.
        """
        world, slices = self.accelerator.num_processes, self.args.gradient_accumulation_steps
        if not self.model.training:
            return torch.ones((), device=mask.device), 1.0
        first = self._step - self._step % slices
        buffered = self._buffered_inputs[first % self.args.steps_per_generation :][:slices]
        own = torch.stack([batch["completion_mask"].sum() for batch in buffered]).sum().float()
        total = self.accelerator.reduce(own, reduction="sum") if world > 1 else own
        retain = token_share(self.retain_sampler, *self._place())
        return world * mask.sum() / total.clamp(min=1), world * retain

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        ids: Tensor,
        attention: Tensor,
        length: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        if ids.device.type == "cpu" and not kwargs.get("compute_aux_loss"):
            result = self._on_cpu(model, ids, attention, length, batch_size or len(ids))
        else:
            result = super()._get_per_token_logps_and_entropies(
                model, ids, attention, length, batch_size, **kwargs
            )
        self._logps = result[0]  # kept for the KL terms, so that they cost no forward pass
        return result

    def _on_cpu(self, model: Any, ids: Tensor, attention: Tensor, length: int, size: int) -> Any:
        """TRL's own numbers; without Triton it passes prompts and pads through the head too, in float32."""
        parts = []
        for some, seen in zip(ids.split(size), attention.split(size), strict=True):
            with self.accelerator.autocast():
                if torch.is_grad_enabled() and self._retained is not None and len(ids) <= size:
                    rollouts, mask = completion_batch(some, seen, length)
                    (logits, targets, _), retain = logits_of_both(model, rollouts, self._retained)
                    self._beside, logits_of = retain[0], (logits, targets, mask)
                else:
                    logits_of = completion_logits(model, some, seen, length)
                parts.append(completion_logprobs(*logits_of, self.temperature, bool(self.args.entropy_coef)))
            if not torch.is_grad_enabled():
                self._seen.append(logits_of[0])
        logps, entropies = (torch.cat(part) for part in zip(*parts, strict=True))
        return logps, entropies, None

    def _place(self) -> tuple[int, Part]:
        """Number of the update under way, and the part that this micro-batch has in it."""
        world, slices = self.accelerator.num_processes, self.args.gradient_accumulation_steps
        update, micro = divmod(self._step, slices)
        part = micro * world + self.accelerator.process_index
        return update, Part(part, part + 1, slices * world)

    def _retain_rows(self) -> dict[str, Tensor]:
        rows = self.retain_sampler.batch(*self._place())
        return to_batch(rows, self.processing_class.pad_token_id, self.accelerator.device)

    def _distillation(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """L_dis: KL(π_N ‖ π) over the full next-token distribution at response positions of retain samples."""
        now, self._beside = self._beside, None
        if now is None:
            now, _, _ = response_logits(model, batch)
        with as_original(self.accelerator.unwrap_model(model), self.reference) as original:
            then, _, _ = response_logits(original, batch)
        return kl_divergence(then, now).mean()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Until the end or until a stopping rule holds, whose reason is then in `stopped`."""
        try:
            return super().train(*args, **kwargs)
        except StopTraining as stop:
            self.stopped = stop.reason
            self.log({})  # the rollouts that led to the stop
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            if stop.restore:  # the last batch boundary whose rollouts were whole
                self.good_weights.restore(self.accelerator.unwrap_model(self.model))

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.critic is not None and self._step % self.args.gradient_accumulation_steps == 0:
            self.critic.zero_grad()  # the Trainer clears the gradients of the policy alone
        loss = super().training_step(*args, **kwargs)
        if self.critic is not None and self.accelerator.sync_gradients and self.accelerator.num_processes > 1:
            self.critic.share_gradients(self.accelerator)
        return loss

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if fresh and self.critic is not None:
            rate = self.method.critic_lr or self.args.learning_rate
            optimizer.add_param_group(self.critic.optimizer_group(rate))
        return optimizer

    # --- logs and checkpoints ---------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        clip = self._metrics["train"].get("clip_ratio/region_mean")
        if clip:
            self._metrics["train"]["clip_fraction"] = list(clip)
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A run's card is its manifest and its report."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.accelerator.is_main_process:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            if self.critic is not None:
                self.critic.save(folder)
            self.rules.save(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if self.critic is not None:
            self.critic.restore(Path(checkpoint))
        self.rules.restore(Path(checkpoint))
        # Distillation batches are a function of the step count; checkpoints stand on batch boundaries only.
        self._step = self.state.global_step * self.args.gradient_accumulation_steps


def train_rl(
    policy: Any,
    tokenizer: Any,
    *,
    config: DareUConfig,
    step: Step,
    reference: Any,
    prompts: Sequence[Prompt],
    retain_rows: Sequence[Encoded],
    critic: Critic | None = None,
    monitor: Monitor | None = None,
    max_new_tokens: int,
    seed: int = 0,
    device: str = "cpu",
    work: Work,
    anchor: CounterfactualAnchor | None = None,
) -> Outcome:
    """Unlearn in place; resume from the newest whole checkpoint in `work`.

    `critic` is needed for `advantage.estimator: critic`, and left out with the others. `anchor`: what the KL terms
    compare with, None for the original.

    Raises:
        ConfigError: Batch sizes do not fit.
        TrainingError: The loss is not finite.
    """
    connect()
    plan = Plan.of(config, len(prompts))
    updates = config.updates_per_batch * plan.parts  # between one batch of rollouts and the next
    if (critic is None) == (config.advantage.estimator == "critic"):
        raise ValueError(
            f"advantage.estimator={config.advantage.estimator} {'with' if critic else 'without'} a critic"
        )
    arguments = GRPOConfig(
        **trainer_arguments(
            config.optim,
            work,
            seed,
            device,
            per_device_train_batch_size=plan.micro,
            gradient_accumulation_steps=plan.slices,
            num_train_epochs=1,
            save_steps=math.ceil(config.optim.save_every / updates) * updates,
            warmup_steps=config.optim.warmup_ratio,
        ),
        **engine_settings(config, plan, max_new_tokens, allowed_tokens(policy)),
    )
    sampler = RolloutSampler(
        len(prompts), plan.prompts, config.num_generations, updates * plan.slices, config.data_epochs, seed
    )
    with warnings.catch_warnings():
        trainer = RLTrainer(
            model=policy,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"prompt": [p.prompt for p in prompts], "index": list(range(len(prompts)))}
            ),
            processing_class=tokenizer,
            callbacks=[Bookkeeping(work)],
            config=config,
            prompts=prompts,
            step=step,
            monitor=monitor,
            critic=critic,
            reference=reference,
            retain_sampler=RetainSampler(retain_rows, plan.retain, seed),
            good_weights=GoodWeights(work.folder / "good.safetensors"),
            sampler=sampler,
            anchor=anchor,
        )
    run_trainer(trainer, work)
    return Outcome(trainer.state.global_step, trainer.stopped)
