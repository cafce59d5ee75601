"""Task-vector negation: fine-tune a copy on the forget set, then go as far the other way (Ilharco et al. 2023, arXiv
2212.04089).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dareu.config import VectorConfig
from dareu.data.render import Encoded
from dareu.methods.base import Method, MethodContext
from dareu.models.load import is_peft
from dareu.training.common import Work, non_finite
from dareu.training.loss_spec import FINETUNE

DOWN = ("lora_A", "lora_embedding_A")  # an adapter is B·A, this is A


def negate(original: Tensor, tuned: Tensor, scale: float) -> Tensor:
    """θ_orig − s · (θ_tuned − θ_orig): the task vector, subtracted (Ilharco et al. 2023, arXiv 2212.04089)."""
    return original - scale * (tuned - original)


def negate_by_training(
    model: Any,
    tokenizer: Any,
    *,
    config: VectorConfig,
    rows: Sequence[Encoded],
    seed: int = 0,
    device: str = "cpu",
    work: Work,
) -> float:
    """θ_orig − scale · (θ_tuned − θ_orig) in place; returns ‖θ_tuned − θ_orig‖. Resumes as `train_with_loss` does.

    Of an adapter B alone is trained: with A fixed, negating what B learned negates what the weights learned, which it
    would not do if both moved.

    Raises:
        TrainingError: A weight is not finite.
    """
    from dareu.training.loss_trainer import train_with_loss

    if is_peft(model):
        for name, parameter in model.named_parameters():
            if any(part in DOWN for part in name.split(".")):
                parameter.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    original = [p.detach().clone() for p in trained]
    train_with_loss(
        model,
        tokenizer,
        method=FINETUNE,
        optim=config.optim,
        rows=rows,
        seed=seed,
        device=device,
        work=work,
    )
    squared = 0.0
    with torch.no_grad():
        for parameter, before in zip(trained, original, strict=True):
            before = before.to(parameter.device)
            squared += float(((parameter - before).double() ** 2).sum())
            parameter.copy_(negate(before, parameter, config.scale))
            if not parameter.isfinite().all():
                raise non_finite(work.log[-1]["step"] if work.log else 0, "weights are")
    return math.sqrt(squared)


class TaskVector(Method):
    """Configured by `VectorConfig`."""

    engine = "dareu.training.loss_trainer"

    def run(self, context: MethodContext) -> dict[str, Any]:
        config, work = context.config, context.work
        assert isinstance(config.method, VectorConfig)
        length = negate_by_training(
            context.policy,
            context.tokenizer,
            config=config.method,
            rows=context.encode(context.split.forget),
            seed=config.seed,
            device=context.device,
            work=work,
        )
        return {"steps": work.log[-1]["step"] if work.log else 0, "stopped": None, "vector_length": length}


METHOD = TaskVector()
