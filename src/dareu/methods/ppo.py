"""DareU's PPO on TRL's GRPOTrainer: the only file that imports TRL (pinned to one minor release).

What TRL keeps: sampling, the clipped surrogate (`loss_type="bnpo"`, token-level ratios, `beta=0`), accumulation,
checkpoints, logging. What is added here: dense rewards, a critic, returns and advantages, distillation on the
retain set, early stopping. All mathematics lives in pure functions (`rewards`, `methods.losses`).
Left out: TRL's own reward normalisation (its group means never reach the loss), since advantages stay uncentred.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from trl import GRPOConfig, GRPOTrainer

from dareu.config import DareUConfig
from dareu.data.render import Encoded
from dareu.methods import losses
from dareu.methods.common import (
    Bookkeeping,
    Work,
    last_checkpoint,
    logger_run,
    non_finite,
    process_count,
    rollout_batch,
    trainer_arguments,
)
from dareu.methods.critic import Critic
from dareu.methods.retain import RetainSampler
from dareu.methods.rollouts import RolloutSampler
from dareu.methods.stopping import Monitor, StopRules, StopTraining
from dareu.models.load import reference_logits
from dareu.models.logprobs import kl_divergence, masked_mean, shift, to_batch
from dareu.models.merge import merged
from dareu.rewards import attribution as reward
from dareu.rewards import guards, returns


class Scorer(Protocol):
    """How attributable every prefix of a response is to the forget owners (or to the query's own).

    `prior` is the score of an empty text.
    """

    prior: float

    def __call__(
        self, ids: Tensor, mask: Tensor, owners: Sequence[str], queries: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Scores (B, T) and the probability of the nobody class (B, T), both in [0, 1]."""


@dataclass
class Outcome:
    """How PPO ended."""

    updates: int
    stopped: str | None


class DareUTrainer(GRPOTrainer):
    """PPO with a critic, dense attribution rewards and distillation."""

    def __init__(
        self,
        *,
        config: DareUConfig,
        scorer: Scorer,
        monitor: Monitor | None,
        critic: Critic,
        reference: Any,
        retain_sampler: RetainSampler[Encoded],
        good_weights: Path,
        sampler: RolloutSampler,
        **kwargs: Any,
    ) -> None:
        self.method = config
        self.scorer, self.monitor, self.critic = scorer, monitor, critic
        self.reference, self.retain_sampler = reference, retain_sampler
        self.good_weights, self.rollout_sampler = good_weights, sampler
        self._owners: list[str] = []
        self._queries: list[str] = []
        self.rules = StopRules(config.stop)
        super().__init__(reward_funcs=[self.sequence_reward], **kwargs)
        # TRL patches the policy's forward on the instance; the reference was copied before and keeps its own.
        self.critic.to(self.accelerator.device)

    # --- rollouts ---------------------------------------------------------------------------------------------

    def sequence_reward(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """TRL asks for one reward a response; the dense ones replace it, so this only notes whose prompts they are."""
        self._owners, self._queries = list(columns["owner"]), list(columns["query"])
        return [0.0] * len(prompts)

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        return self.rollout_sampler

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        # Prompts are rendered already, special tokens included (data/render.py).
        return self.processing_class(text=prompts, add_special_tokens=False)["input_ids"], None, {}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        policy = self.accelerator.unwrap_model(self.model)
        if self.use_vllm or not self.method.merge_rollouts:
            return super()._generate_single_turn(*args, **kwargs)
        with merged(policy):
            return super()._generate_single_turn(*args, **kwargs)

    @torch.no_grad()
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        for name in [n for n in self._metrics["train"] if "reward" in n]:  # of `sequence_reward`: all zero
            del self._metrics["train"][name]
        ids, mask = batch["completion_ids"], batch["completion_mask"]
        full, attention, length = self._concatenate(batch)
        policy = self.accelerator.unwrap_model(self.model)
        logits = policy(input_ids=full, attention_mask=attention).logits[:, -length - 1 : -1]
        frozen = reference_logits(policy, self.reference, full, attention)[:, -length - 1 : -1]
        kl = kl_divergence(logits, frozen) * mask
        finished = torch.isin(ids, torch.tensor(self.eos_token_ids, device=ids.device)).any(1)
        texts = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        scores, nobody = self.scorer(ids, mask, self._owners, self._queries)
        dense = self._dense_reward(scores, nobody, ids, mask, finished, texts, kl, frozen)
        self.critic.eval()
        values = self.critic(full, attention, length) * mask
        advantages, targets = returns.gae(
            dense, values, mask, self.method.advantage.gamma, self.method.advantage.gae_lambda
        )
        batch["advantages"] = returns.shape_advantages(
            advantages,
            mask,
            self.method.advantage.mode,
            # Returns of levels grow with 1/(1−γ), those of differences do not.
            self.method.advantage.gamma if self.method.reward.credit == "level" else 1.0,
            self.method.advantage.scale,
            self._global_moments(advantages, mask),
        )
        batch["returns"], batch["old_values"] = targets, values
        if "old_per_token_logps" not in batch:  # TRL leaves it out where generation and update are aligned
            batch["old_per_token_logps"] = self._get_per_token_logps_and_entropies(
                self.model, full, attention, length, batch_size=self.args.per_device_train_batch_size
            )[0]
        empty = torch.tensor([not any(c.isalnum() for c in t) for t in texts], device=ids.device)
        self._note(
            reward=masked_mean(dense, mask),
            saturated_share=reward.saturated_share(scores, mask, self.method.reward.scale),
            rollout_attribution=scores.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0)).mean(),
            kl_original=masked_mean(kl, mask),
            explained_variance=returns.explained_variance(values, targets, mask),
            response_length=mask.sum(1).float().mean(),
            empty_share=empty.float().mean(),
            unfinished_share=1 - finished.float().mean(),
        )
        if self.model.training:
            last = nobody.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0))
            self._consider_stopping(texts, finished, masked_mean(kl, mask), (last > 0.5).float().mean())
        return batch

    def _dense_reward(
        self,
        scores: Tensor,
        nobody: Tensor,
        ids: Tensor,
        mask: Tensor,
        finished: Tensor,
        texts: Sequence[str],
        kl: Tensor,
        frozen: Tensor,
    ) -> Tensor:
        """Attribution reward, KL term and guards, (B, T)."""
        cfg = self.method.reward
        floor = cfg.floor * self.scorer.prior
        judged = (scores.clamp(min=floor) + cfg.nobody_weight * nobody).clamp(0, 1)
        dense = reward.attribution_reward(
            judged,
            mask,
            cfg.transform,
            cfg.scale,
            cfg.epsilon,
            cfg.granularity,
            cfg.slices,
            cfg.prefix_mean,
            cfg.credit,
            max(self.scorer.prior, floor),
        )
        dense = dense - cfg.kl * kl
        if cfg.length_penalty:
            dense = dense + cfg.length_penalty * guards.unfinished_penalty(mask, finished)
        if cfg.empty_penalty:
            empty = torch.tensor([not any(c.isalnum() for c in t) for t in texts], device=ids.device)
            dense = dense + cfg.empty_penalty * guards.empty_penalty(mask, empty)
        if cfg.repetition_penalty:
            dense = dense + cfg.repetition_penalty * guards.repetition_penalty(ids, mask)
        if cfg.fluency:
            logps = frozen.float().log_softmax(-1).gather(2, ids.unsqueeze(2)).squeeze(2)
            dense = dense + cfg.fluency * guards.fluency(logps, mask, cfg.fluency_clip)
        return dense * mask

    @staticmethod
    def _concatenate(batch: dict[str, Any]) -> tuple[Tensor, Tensor, int]:
        full = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        return full, attention, batch["completion_ids"].size(1)

    def _global_moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over the response tokens of all processes."""
        m = mask.to(values.dtype)
        sums = torch.stack([m.sum(), (values * m).sum(), (values**2 * m).sum()])
        count, first, second = self.accelerator.reduce(sums, reduction="sum")
        mean = first / count.clamp(min=1)
        return mean, (second / count.clamp(min=1) - mean**2).clamp(min=0)

    # --- early stopping ---------------------------------------------------------------------------------------

    def _consider_stopping(self, texts: Sequence[str], finished: Tensor, kl: Tensor, nobody: Tensor) -> None:
        """Look at the rollouts of the weights as they stand, before any update on them.

        `nobody` is the share of them that the classifier takes for broken text or text of no owner.
        """
        numbers = {}
        if self.monitor:
            numbers = self.monitor(texts, finished.tolist(), self._owners, self._queries)
        numbers |= {"kl": float(kl), "nobody": float(nobody)}
        names = sorted(numbers)
        local = torch.tensor([numbers[n] for n in names], device=self.accelerator.device)
        numbers = dict(zip(names, self.accelerator.reduce(local, reduction="mean").tolist(), strict=True))
        self._note(**{f"stop_{n}": torch.tensor(v) for n, v in numbers.items()})
        self.rules.check_health(numbers)
        self._keep_good_weights()
        self.rules.check_goal(numbers)

    def _trainable(self) -> dict[str, Tensor]:
        policy = self.accelerator.unwrap_model(self.model)
        return {n: p for n, p in policy.named_parameters() if p.requires_grad}

    def _keep_good_weights(self) -> None:
        if self.method.stop.unhealthy is None or not self.accelerator.is_main_process:
            return
        from safetensors.torch import save_file

        partial = self.good_weights.with_suffix(".partial")
        save_file({n: p.detach().cpu().contiguous() for n, p in self._trainable().items()}, partial)
        partial.replace(self.good_weights)

    @torch.no_grad()
    def restore_good_weights(self) -> None:
        """Back to the weights of the last batch boundary whose rollouts were whole."""
        from safetensors.torch import load_file

        if self.good_weights.is_file():
            kept = load_file(self.good_weights)
            for name, parameter in self._trainable().items():
                parameter.copy_(kept[name])

    # --- updates ----------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        total = super()._compute_loss(model, inputs)
        log_ratio = self._logps - inputs["old_per_token_logps"]
        self._note(kl_old=masked_mean(log_ratio.exp() - 1 - log_ratio, inputs["completion_mask"]))
        share = self.current_gradient_accumulation_steps if self.model.training else 1
        if self.method.value_coef:
            self.critic.train()
            full, attention, length = self._concatenate(inputs)
            values = self.critic(full, attention, length)
            value = losses.value_loss(
                values, inputs["old_values"], inputs["returns"], inputs["completion_mask"], self.method.clip
            )
            total = total + self.method.value_coef * value / share
            self._note(value_loss=value.detach())
        if self.method.distill and self.state.global_step % self.method.distill_every == 0:
            term = self._distillation(model)
            total = total + self.method.distill * term / share
            self._note(distill=term.detach())
        if not torch.isfinite(total.detach()):
            raise non_finite(self.state.global_step)
        return total

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._logps = result[0].detach()  # kept for `kl_old`, so that it costs no forward pass
        return result

    def _distillation(self, model: Any) -> Tensor:
        """L_dis: KL(π_N ‖ π) over the full next-token distribution at response positions of retain samples."""
        rows = self.retain_sampler.batch(
            self._step, self.accelerator.process_index, self.accelerator.num_processes
        )
        batch = to_batch(rows, self.processing_class.pad_token_id, self.accelerator.device)
        ids, attention = batch["input_ids"], batch["attention_mask"]
        policy = self.accelerator.unwrap_model(model)
        then, _, mask = shift(reference_logits(policy, self.reference, ids, attention), batch["labels"])
        now, _, _ = shift(model(input_ids=ids, attention_mask=attention).logits, batch["labels"])
        return losses.kl_retain(kl_divergence(then, now), mask)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        if self._step % self.args.gradient_accumulation_steps == 0:
            self.critic.zero_grad()  # the Trainer clears the gradients of the policy alone
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients and self.accelerator.num_processes > 1:
            for parameter in self.critic.parameters():  # the critic stands outside the DDP wrapper
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        return loss

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if fresh:
            optimizer.add_param_group(
                {
                    "params": list(self.critic.parameters()),
                    "lr": self.method.critic_lr or self.args.learning_rate,
                    "weight_decay": 0.0,
                }
            )
        return optimizer

    # --- logs and checkpoints ---------------------------------------------------------------------------------

    def _note(self, **numbers: Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in numbers.items():
            self._metrics[mode][name].append(
                float(
                    self.accelerator.gather(
                        value.detach().float().to(self.accelerator.device).reshape(1)
                    ).mean()
                )
            )

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
            self.critic.save(folder)
            self.rules.save(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.critic.restore(Path(checkpoint))
        self.rules.restore(Path(checkpoint))
        # Distillation batches are a function of the step count; checkpoints stand on batch boundaries only.
        self._step = self.state.global_step * self.args.gradient_accumulation_steps


def train_dareu(
    policy: Any,
    tokenizer: Any,
    *,
    config: DareUConfig,
    reference: Any,
    prompts: Sequence[str],
    owners: Sequence[str],
    queries: Sequence[str],
    retain_rows: Sequence[Encoded],
    scorer: Scorer,
    critic: Critic,
    monitor: Monitor | None = None,
    max_new_tokens: int,
    seed: int = 0,
    device: str = "cpu",
    work: Work,
) -> Outcome:
    """Unlearn in place; resume from the newest whole checkpoint in `work`.

    `queries` are the forget queries, `prompts` the same as rendered for the model, `owners` whose they are.
    Errors: `ConfigError` for batch sizes that do not fit, `TrainingError` for a loss that is not finite.
    """
    per_batch, micro = rollout_batch(config, len(prompts))
    rollouts, world = per_batch * config.num_generations, process_count()
    slices = rollouts // (micro * world)
    retain_size = -(-config.retain_batch_size // (slices * world)) if config.retain_batch_size else micro
    updates = config.updates_per_batch
    group = (
        config.num_generations
        if config.num_generations >= 2
        else next(g for g in range(2, rollouts + 1) if rollouts % g == 0)
    )
    arguments = GRPOConfig(
        **trainer_arguments(
            config.optim,
            work,
            seed,
            device,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=slices,
            num_train_epochs=1,
            save_steps=math.ceil(config.optim.save_every / updates) * updates,
            warmup_steps=config.optim.warmup_ratio,
        ),
        steps_per_generation=slices,
        num_iterations=updates,
        num_generations=group,
        max_completion_length=max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=0,
        beta=0.0,
        epsilon=config.clip,
        loss_type="bnpo",
        scale_rewards="none",
        importance_sampling_level="token",
        entropy_coef=config.entropy_coef,
        disable_dropout=True,  # so that the ratio to π_old is 1 before the first update
        use_vllm=config.use_vllm,
        gradient_checkpointing=False,
        shuffle_dataset=False,
    )
    sampler = RolloutSampler(
        len(prompts), per_batch, config.num_generations, updates * slices, config.data_epochs, seed
    )
    with warnings.catch_warnings():
        trainer = DareUTrainer(
            model=policy,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"prompt": list(prompts), "owner": list(owners), "query": list(queries)}
            ),
            processing_class=tokenizer,
            callbacks=[Bookkeeping(work)],
            config=config,
            scorer=scorer,
            monitor=monitor,
            critic=critic,
            reference=reference,
            retain_sampler=RetainSampler(retain_rows, retain_size, seed),
            good_weights=work.folder / "good.safetensors",
            sampler=sampler,
        )
    trainer.remove_callback(_printer())
    checkpoint = last_checkpoint(work.checkpoints)
    stopped = None
    with logger_run(work):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except StopTraining as stop:
            stopped = stop.reason
            trainer.log({})  # the rollouts that led to the stop
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            if stop.restore:
                trainer.restore_good_weights()
    return Outcome(trainer.state.global_step, stopped)


def _printer() -> Callable[..., Any]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
