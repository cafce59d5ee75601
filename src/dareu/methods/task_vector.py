"""Task-vector negation: fine-tune on the forget set, then go the same way backwards (Ilharco et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from dareu.config import VectorConfig
from dareu.data.render import Encoded
from dareu.methods.procedures import negate
from dareu.methods.registry import METHODS
from dareu.models.load import is_peft
from dareu.training.common import Work, non_finite
from dareu.training.loss_trainer import train_with_loss

DOWN = ("lora_A", "lora_embedding_A")  # an adapter is B·A, this is A


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
    would not do if both moved. `TrainingError` where a weight is not finite.
    """
    if is_peft(model):
        for name, parameter in model.named_parameters():
            if any(part in DOWN for part in name.split(".")):
                parameter.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    original = [p.detach().clone() for p in trained]
    train_with_loss(
        model,
        tokenizer,
        method=METHODS["nll"],
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
