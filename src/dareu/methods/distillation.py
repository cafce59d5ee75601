"""What the methods share that fine-tune towards soft targets, which the original model gives before training.

A method says what its targets are (`teachers`); they are computed once, stored in the work folder, and training is the
loss trainer's: mean KL(target ‖ π) at the answer tokens, and the retain term that is configured.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dareu.data.corpus import Sample
from dareu.data.render import encode_samples
from dareu.methods.base import MethodContext
from dareu.methods.loss_method import LossMethod, settings_of
from dareu.training.loss_spec import needs_reference, read_settings
from dareu.training.soft_targets import SoftTargets, load_targets, save_targets

TARGETS = "teachers.safetensors"
READS = ("answer_logits", "target_ids", "target_probs")


@dataclass(frozen=True)
class Distillation(LossMethod):
    """A loss whose targets are made from the original model."""

    @abstractmethod
    def teachers(self, context: MethodContext, settings: Any) -> list[SoftTargets]:
        """The target of each of `samples`; `context.policy` is still the original model."""

    def samples(self, context: MethodContext) -> Sequence[Sample]:
        """What training walks through; each has a target."""
        return context.split.forget

    def make_student(self, policy: Any) -> None:
        """Change the policy in place before training; its targets are made already."""

    def targets(self, context: MethodContext) -> Sequence[SoftTargets]:
        """The teachers, from the work folder where a run that was cut off left them."""
        path = context.work.folder / TARGETS
        if path.is_file():
            return load_targets(path)
        assert self.settings is not None
        settings = read_settings(self.settings, settings_of(context.config).params)
        found = self.teachers(context, settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_targets(path, found)
        return found

    def run(self, context: MethodContext) -> dict[str, Any]:
        from dareu.models.load import freeze_original
        from dareu.training.loss_trainer import train_with_loss

        config, method, work = context.config, settings_of(context.config), context.work
        length, task = config.model.max_length, context.corpus.task
        targets = self.targets(context)
        reference = freeze_original(context.policy) if needs_reference(self, method.retain) else None
        self.make_student(context.policy)
        train_with_loss(
            context.policy,
            context.tokenizer,
            method=self,
            optim=method.optim,
            rows=encode_samples(context.tokenizer, self.samples(context), task, length),
            retain_rows=encode_samples(context.tokenizer, context.split.retain, task, length),
            retain=method.retain,
            retain_batch_size=method.retain_batch_size,
            params=method.params,
            forget_weight=method.forget_weight,
            retain_weight=method.retain_weight,
            reference=reference,
            targets=targets,
            seed=config.seed,
            device=context.device,
            work=work,
        )
        return {"steps": work.log[-1]["step"] if work.log else 0, "stopped": None}
