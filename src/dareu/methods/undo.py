"""UNDO: unlearn, noise the weights, distil the unlearned model's outputs into them (Lee et al. 2025, arXiv 2506.06278).

    1. unlearn   θ_u minimises  −H(π) on forget answers  +  λ · KL( π_N ‖ π ) on retain samples      (MaxEnt)
    2. noise     θ   = (1 − α) · θ_u  +  α · β · N,   N ~ Xavier normal, a new draw for each matrix
    3. distil    θ   minimises  KL( π_θu ‖ π_θ ) on forget and retain answers

Relearning recalls what weights still hold although outputs do not show it; noise destroys it and distillation restores
only what the unlearned outputs say. α trades compute for resistance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dareu.config import Count, NonNegative, Positive, Share, Strict
from dareu.config.params import read_settings
from dareu.methods.base import MethodContext
from dareu.methods.distillation import READS, TARGETS, Distillation, kept_distributions
from dareu.methods.loss_method import settings_of
from dareu.runs import ranks
from dareu.training.loss_spec import LossSpec
from dareu.training.losses import SoftTargets, divergence_from_targets


class UndoSettings(Strict):
    """`alpha`, `beta`: of the noise; `top_k`: tokens of each distribution that are distilled; `unlearn_lr`,
    `unlearn_epochs`, `unlearn_retain`: learning rate, passes over the forget set and λ of the first phase.
    """

    alpha: Share = 0.3
    beta: NonNegative = 0.1
    top_k: Count = 256
    unlearn_lr: Positive = 1e-3
    unlearn_epochs: Positive = 10.0
    unlearn_retain: NonNegative = 1.0


def negative_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """−H of the next-token distribution, a mean over answer tokens, in nats. In [−ln V, 0]; `logits` (B, T, V)."""
    logps = logits[mask.bool()].float().log_softmax(-1)
    return (logps.exp() * logps).sum(-1).sum() / mask.sum().clamp(min=1)


def noised(weight: Tensor, alpha: float, beta: float, generator: torch.Generator) -> Tensor:
    """(1 − α) · weight + α · β · N with N Xavier normal: sd √(2 / (rows + columns)).

    Vectors (norms, biases) stay: Xavier's initialisation is one of matrices.
    """
    if weight.dim() < 2:
        return weight
    drawn = torch.randn(weight.shape, generator=generator) * (2 / (weight.size(0) + weight[0].numel())) ** 0.5
    return (1 - alpha) * weight + alpha * beta * drawn.to(weight)


MAX_ENTROPY = LossSpec(negative_entropy, reads=("logits", "mask"))


@dataclass(frozen=True)
class Undo(Distillation):
    """The targets are those of the unlearned model, which the first phase makes of the policy."""

    def shares_weights(self) -> bool:
        return False  # weights are changed beside training

    def teachers(self, context: MethodContext, settings: UndoSettings) -> list[SoftTargets]:
        self._unlearn(context, settings)
        return kept_distributions(context, context.encode(self.samples(context.split)), settings.top_k)

    def _unlearn(self, context: MethodContext, settings: UndoSettings) -> None:
        from dareu.models.load import freeze_original
        from dareu.training.loss_trainer import train_with_loss

        config, method = context.config, settings_of(context.config)
        train_with_loss(
            context.policy,
            context.tokenizer,
            method=MAX_ENTROPY,
            optim=method.optim.model_copy(
                update={"lr": settings.unlearn_lr, "epochs": settings.unlearn_epochs, "steps": None}
            ),
            rows=context.encode(context.split.forget),
            retain_rows=context.encode(context.split.retain),
            retain="kl",
            retain_batch_size=method.retain_batch_size,
            retain_weight=settings.unlearn_retain,
            reference=freeze_original(context.policy),
            seed=config.seed,
            device=context.device,
            work=context.work.apart(context.work.folder / "unlearn"),
        )

    def targets(self, context: MethodContext) -> Sequence[SoftTargets]:
        """The noised weights lie beside the targets: an interrupted run continues from them."""
        from dareu.training.early_stopping import GoodWeights

        start = GoodWeights(context.work.folder / "noised.safetensors")
        kept = context.work.folder / TARGETS
        if ranks.on_main(kept.is_file) and start.restore(context.policy):
            return super().targets(context)
        if ranks.is_main():
            kept.unlink(missing_ok=True)
        targets = super().targets(context)
        settings = read_settings(UndoSettings, settings_of(context.config).params)
        draw = torch.Generator().manual_seed(context.config.seed)
        with torch.no_grad():
            for parameter in context.policy.parameters():
                if parameter.requires_grad:
                    parameter.copy_(noised(parameter.data.cpu(), settings.alpha, settings.beta, draw))
        start.keep(context.policy)
        return targets


METHOD = Undo(divergence_from_targets, reads=READS, settings=UndoSettings, retains=("none",), walks="both")
