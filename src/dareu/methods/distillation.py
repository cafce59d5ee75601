"""What the methods share that fine-tune towards soft targets, which the original model gives before training.

A method says what its targets are (`teachers`); they are computed once, stored in the work folder, and training is the
loss trainer's: mean KL(target ‖ π) at the answer tokens, and the retain term that is configured.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dareu.config.params import read_settings
from dareu.data.render import Encoded
from dareu.methods.base import MethodContext
from dareu.methods.loss_method import LossMethod, settings_of
from dareu.runs import ranks
from dareu.training.losses import SoftTargets, keep_top, load_targets, save_targets

TARGETS = "teachers.safetensors"
READS = ("answer_logits", "target_ids", "target_probs")


def stored_targets(path: Path, make: Callable[[], Sequence[SoftTargets]]) -> Sequence[SoftTargets]:
    """The targets in the file `path`, made and written there first where there is none."""
    if ranks.on_main(path.is_file):
        return load_targets(path)
    targets = make()
    ranks.on_main(lambda: save_targets(path, targets))
    return targets


def kept_distributions(
    context: MethodContext, rows: Sequence[Encoded], top_k: int, model: Any = None
) -> list[SoftTargets]:
    """Distributions at the answers of `rows`, one batch at a time: each spans the vocabulary.

    `model`: whose they are; None: the policy's.
    """
    from dareu.models.counterfactual import distributions
    from dareu.models.logprobs import rows_that_fit, vocabulary_of

    size = rows_that_fit(rows, context.config.evaluation.batch_size, vocabulary_of(context.policy))
    model = context.policy if model is None else model

    def batch(start: int) -> list[SoftTargets]:
        given = distributions(model, context.tokenizer, rows[start : start + size], size)
        return [keep_top(probs, top_k) for probs in given]

    return [row for part in ranks.share_out(range(0, len(rows), size), batch) for row in part]


@dataclass(frozen=True)
class Distillation(LossMethod):
    """A loss whose targets are made from the original model."""

    @abstractmethod
    def teachers(self, context: MethodContext, settings: Any) -> list[SoftTargets]:
        """The target of each of `samples`; `context.policy` is still the original model."""

    def targets(self, context: MethodContext) -> Sequence[SoftTargets]:
        """The teachers, from the work folder where a run that was cut off left them."""
        assert self.settings is not None
        settings = read_settings(self.settings, settings_of(context.config).params)
        return stored_targets(context.work.folder / TARGETS, lambda: self.teachers(context, settings))
