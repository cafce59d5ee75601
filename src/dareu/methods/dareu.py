"""DareU (Lu et al. 2026): policy gradient on prefix-wise attribution rewards, distillation on the retain set.

    r_t = χ(DA(F, y_≤t)) − β · KL(π ‖ anchor)_t        attribution of each prefix, clipped to [−1, 0], and KL to π_N
    R_t = Σ_j γ^j r_{t+j},   A_t = R_t − V(c_t)         returns and advantages; V is a critic (or a baseline)
    J   = E_t min(s_t A_t, clip(s_t, 1 ± ε) A_t)        s_t = π/π_old
    L   = −J + c_V · L_V + λ_dis · E_retain KL(π_N ‖ π)

A run repeats: sample answers to a batch of forget prompts; `evaluate` them; make `updates_per_batch` updates by `loss`.
Sampling, likelihoods, checkpoints and stopping are the engine's (`training/rl_trainer.py`). `rule`, `purge` and
`demem` are this step with another reward; `dareu_rloo`, `dareu_grpo` replace the critic (`advantage.estimator`).
"""

from dataclasses import dataclass

from torch import Tensor

from dareu.config import DareUConfig
from dareu.methods.reinforcement import Reinforcement
from dareu.models.logprobs import masked_mean
from dareu.rewards.base import Reward, by_kind, shaped
from dareu.training import losses
from dareu.training.rollouts import Engine, RolloutBatch, Update


@dataclass(frozen=True)
class DareUStep:
    """What happens to a batch of rollouts, and what an update minimises."""

    config: DareUConfig
    reward: Reward

    def evaluate(self, engine: Engine, batch: RolloutBatch) -> dict[str, Tensor]:
        """Rollouts → rewards → advantages; then whether to stop. The tensors (B, T) that `loss` reads."""
        cfg, rollouts, mask = self.config, batch.rollouts, batch.rollouts.mask

        rewarded = self.reward(rollouts)
        fluent = batch.original_logps() if cfg.reward.fluency else None
        dense = shaped(rewarded, rollouts, cfg.reward, batch.anchor_kl, fluent)
        tensors, numbers = engine.advantages(dense, rewarded.level, batch)
        if cfg.kl_loss:  # at the temperature of sampling, as the ratios are
            tensors["reference_logps"] = batch.anchor_logps(cfg.temperature)

        engine.log_mean(
            **numbers,
            reward=masked_mean(dense, mask),
            kl_original=masked_mean(batch.kl, mask),
            response_length=mask.sum(1).float().mean(),
            empty_share=rollouts.empty.float().mean(),
            unfinished_share=1 - rollouts.finished.float().mean(),
        )
        if cfg.anchor != "original":
            engine.log_mean(kl_anchor=masked_mean(batch.anchor_kl, mask))
        engine.log_weighted(rewarded.logged)
        if cfg.retain_prompts.share or rewarded.values.dim() == 1:
            engine.log_weighted(by_kind(rewarded, rollouts))
        engine.check_stop(rollouts, batch.kl, rewarded.nobody)
        return tensors

    def loss(self, engine: Engine, update: Update) -> Tensor:
        """The loss of a micro-batch, by its share of the update's tokens: micro-batches add up to token means."""
        cfg, batch, mask = self.config, update.tensors, update.mask
        total = update.surrogate  # −J by TRL, less the entropy bonus

        if update.values is not None and cfg.value_coef:
            values = update.values()
            value = losses.value_loss(values, batch["old_values"], batch["returns"], mask, cfg.value_clip)
            total = total + cfg.value_coef * value * update.share
            engine.log_mean(value_loss=value.detach())
        if cfg.kl_loss:
            away = losses.kl_k3(update.logps, batch["reference_logps"], mask)
            total = total + cfg.kl_loss * away * update.share
            engine.log_mean(kl_loss=away.detach())
        if update.distillation is not None:  # every `distill_every` updates
            distill = update.distillation()
            total = total + cfg.distill * distill * update.retain_share
            engine.log_mean(distill=distill.detach())
        return total


METHOD = Reinforcement(DareUStep)
