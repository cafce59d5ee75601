"""What trainers add to those of Transformers and TRL: numbers over processes, adapters of a checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dareu.config import DareUConfig
from dareu.models.files import ADAPTER
from dareu.models.load import POLICY, is_peft
from dareu.models.logprobs import masked_mean
from dareu.rewards.base import Rollouts
from dareu.training.early_stopping import GoodWeights, Monitor, StopRules


class RolloutLog:
    """Numbers over all processes, and early stopping, for a trainer that has an accelerator and metrics."""

    method: DareUConfig
    monitor: Monitor | None
    rules: StopRules
    good_weights: GoodWeights
    accelerator: Any
    model: Any
    _metrics: Any

    def log_mean(self, **numbers: Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in numbers.items():
            own = value.detach().float().to(self.accelerator.device).reshape(1)
            self._metrics[mode][name].append(float(self.accelerator.gather(own).mean()))

    def log_weighted(self, numbers: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Means over the rollouts of all processes, each by its weight; nothing where no weight is."""
        mode = "train" if self.model.training else "eval"
        for name, (value, weight) in numbers.items():
            pair = torch.stack([value.float() * weight, weight.float()]).to(self.accelerator.device)
            total, count = self.accelerator.reduce(pair, reduction="sum")
            if count > 0:
                self._metrics[mode][name].append(float(total / count))

    def check_stop(self, rollouts: Rollouts, kl: Tensor, nobody: Tensor | None) -> None:
        """Look at the rollouts of the weights as they stand, before any update on them: at samples for forget prompts.

        A process that has none of them looks at all of its own, and counts for nothing.
        """
        if not self.model.training:
            return
        forget = rollouts.sampled
        weight = forget.sum()
        rows = [i for i, f in enumerate(forget.tolist()) if f] or list(range(len(rollouts.texts)))
        prompts = [rollouts.prompts[i] for i in rows]
        numbers = {"kl": float(masked_mean(kl[rows], rollouts.mask[rows]))}
        if nobody is not None:
            numbers["nobody"] = float(nobody[rows].mean())
        if self.monitor is not None:
            numbers |= self.monitor(
                [rollouts.texts[i] for i in rows],
                rollouts.finished[rows].tolist(),
                [p.owner for p in prompts],
                [p.query for p in prompts],
            )
        names = sorted(numbers)
        local = torch.tensor([numbers[n] for n in names], device=self.accelerator.device)
        sums = self.accelerator.reduce(torch.cat([local * weight, weight.reshape(1)]), reduction="sum")
        if sums[-1] == 0:  # a batch of retain prompts alone
            return
        numbers = dict(zip(names, (sums[:-1] / sums[-1]).tolist(), strict=True))
        self.log_mean(**{f"stop_{n}": torch.tensor(v) for n, v in numbers.items()})
        self.rules.check_health(numbers)
        if self.method.stop.unhealthy is not None:
            self.good_weights.keep(self.accelerator.unwrap_model(self.model))
        self.rules.check_goal(numbers)


class WholeAdapters:
    """Of a Trainer: a checkpoint's adapters are read, all of them, and what is frozen stays so.

    transformers 5.20, the last release for Python 3.10, reads a checkpoint that also holds the frozen original's
    adapter without the policy's own, which lies in the folder itself: a resumed run would begin with the original's
    weights and the later state of the optimizer.
    """

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        model = model or self.model
        trained = [(p, p.requires_grad) for p in model.parameters()]
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        folder = Path(resume_from_checkpoint)
        if is_peft(model) and (folder / ADAPTER).is_file() and any(folder.glob(f"*/{ADAPTER}")):
            model.load_adapter(str(folder), POLICY, is_trainable=True)
            model.set_adapter(POLICY)
        for parameter, flag in trained:  # loading an adapter unfreezes the whole of it
            parameter.requires_grad_(flag)
