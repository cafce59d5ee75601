"""PDU: flatten the forget answers' logits under a bound on the retain loss, by dual ascent (Entesari et al. 2025,
arXiv 2506.05314). The weight of the retain term is a dual variable that rises while the retain loss is too high.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from dareu.config import NonNegative, Positive, Strict
from dareu.methods.loss_method import LossMethod
from dareu.runs.files import read_json, write_json
from dareu.training.loss_trainer import LossTrainer
from dareu.training.losses import mean

STATE = "dual.json"


class PDUSettings(Strict):
    """`epsilon`: the retain loss that is allowed; `step_size`: η; `warmup_epochs`: until then α stays as it is."""

    epsilon: NonNegative
    step_size: Positive
    warmup_epochs: NonNegative = 0.0


def logit_margin(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over answer tokens of (max logit − mean logit)² (PDU; Entesari et al. 2025, arXiv 2506.05314). ≥ 0.

    `logits` (B, T, V) and `mask` (B, T) as `models.logprobs.shift` gives them: both shifted. 0 where the distribution
    is uniform.
    """
    counting = logits[mask.bool()].float()
    return mean((counting.amax(-1) - counting.mean(-1)) ** 2)


def dual_ascent(dual: float, retain_loss: float, epsilon: float, step_size: float) -> float:
    """α ← max(0, α + η · (L_retain − ε)): one step of projected gradient ascent on the dual of L_retain ≤ ε (PDU)."""
    return max(0.0, dual + step_size * (retain_loss - epsilon))


class PDUTrainer(LossTrainer):
    """`retain_weight` is α. After each optimizer step past the warm-up it takes a step of dual ascent by the step's
    own retain loss, the mean over micro-batches and processes; it is kept in the checkpoint.

    −α·ε, which has no gradient, is left out of the loss.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._retained: list[Tensor] = []  # retain losses of the step under way
        self.add_callback(_AtStepEnd(self))

    def _retain_term(self, model: Any) -> Tensor:
        kept = super()._retain_term(model)
        assert self.retain_sampler is not None
        self._retained.append(self._share_of(self.retain_sampler) * kept.detach())
        return kept

    def ascend(self) -> None:
        """Called once after each optimizer step."""
        retain_loss = self.accelerator.reduce(torch.stack(self._retained).mean(), reduction="mean")
        self._retained = []
        # An epoch counts as passed once the step after it was made.
        if (self.state.epoch or 0.0) > self.settings.warmup_epochs:
            self.retain_weight = dual_ascent(
                self.retain_weight, float(retain_loss), self.settings.epsilon, self.settings.step_size
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["dual"] = self.retain_weight
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_json(folder / STATE, {"dual": self.retain_weight})

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.retain_weight = read_json(Path(checkpoint) / STATE)["dual"]


class _AtStepEnd(TrainerCallback):
    """Before the checkpoint of the same step is written."""

    def __init__(self, trainer: PDUTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.ascend()


METHOD = LossMethod(
    logit_margin, reads=("logits", "mask"), trainer=PDUTrainer, settings=PDUSettings, retains=("nll", "kl")
)
