"""CE-U: cross-entropy to the model's own distribution without the true token (Yang 2025, arXiv 2503.01224)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dareu.methods.loss_method import LossMethod


def ceu(
    logits: Tensor, labels: Tensor, mask: Tensor, ignore_first: Annotated[int, Field(ge=0)] = 1
) -> Tensor:
    """Mean over answer tokens of the cross-entropy to softmax of the (detached) logits with the label's at −∞. ≥ 0.

    The gradient in the logits is p − target: bounded, and 0 once the true token has no probability. The first
    `ignore_first` answer tokens do not count, as in a footnote of the paper and in its code. `logits` (B, T, V) and
    `labels` (B, T) are shifted; what stands where `mask` is 0 is never read.
    """
    counted = mask.bool() & (mask.cumsum(1) > ignore_first)
    picked, gold = logits[counted].float(), labels[counted].unsqueeze(1)
    target = picked.detach().scatter(1, gold, -torch.inf).softmax(-1)
    return F.cross_entropy(picked, target, reduction="sum") / counted.sum().clamp(min=1)


METHOD = LossMethod(ceu, reads=("logits", "labels", "mask"))
