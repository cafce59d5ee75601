"""UNDIAL: distil from the original model with the true token's logit lowered (Dong et al. 2024, arXiv 2402.10052)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dareu.config import NonNegative
from dareu.methods.loss_method import LossMethod


def undial(
    logits: Tensor, labels: Tensor, mask: Tensor, reference_logits: Tensor, beta: NonNegative = 5.0
) -> Tensor:
    """Mean over answer tokens of the cross-entropy to softmax(z_ref − β · onehot(y)). ≥ the target's entropy.

    `logits` and `reference_logits` (B, T, V), `labels` and `mask` (B, T), all shifted.
    """
    counted = mask.bool()
    gold = labels[counted].unsqueeze(1)
    picked, target = logits[counted].float(), reference_logits[counted].float()
    target = target.scatter_add(1, gold, torch.full_like(gold, -beta, dtype=target.dtype)).softmax(-1)
    return F.cross_entropy(picked, target, reduction="sum") / counted.sum().clamp(min=1)


METHOD = LossMethod(undial, reads=("logits", "labels", "mask", "reference_logits"))
