"""Losses that weigh, or aim at, the tokens of the forget answers one by one.

`logps` and `mask` (B, T) come from `models.logprobs.token_logprobs`; `logits` and `reference_logits` (B, T, V) and
`labels` (B, T) from `models.logprobs.shift`, so that they are aligned with one another and hold no −100. Work over
the vocabulary is done at answer tokens alone: what stands elsewhere, prompt or padding, is never read. All are means
over the answer tokens of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dareu.config import NonNegative


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)


def wga(logps: Tensor, mask: Tensor, beta: NonNegative = 1.0) -> Tensor:
    """Weighted gradient ascent: mean of p^β · log p (Wang et al. 2025, arXiv 2502.19301).

    The weight p^β carries no gradient: a token that is forgotten already is pushed less. ≤ 0, and at β > 0 no less
    than −1/(e·β); at β = 0 it is gradient ascent.
    """
    weight = (beta * logps.detach()).exp()
    return _mean(weight * logps, mask)


def satimp(logps: Tensor, mask: Tensor, beta1: NonNegative = 5.0, beta2: NonNegative = 1.0) -> Tensor:
    """Saturation and importance: mean of p^β1 · (1 − p)^β2 · log p (Yang et al. 2025, arXiv 2505.11953).

    p^β1 (saturation) takes weight from tokens that are forgotten already, (1 − p)^β2 (importance) from those that the
    model is sure of. The weights carry no gradient. ≤ 0; β2 = 0 is `wga`.
    """
    then = logps.detach()
    weight = (beta1 * then).exp() * (-then.expm1()).clamp(min=0) ** beta2
    return _mean(weight * logps, mask)


def ceu(logits: Tensor, labels: Tensor, mask: Tensor, ignore_first: int = 1) -> Tensor:
    """CE-U: cross-entropy to one's own distribution without the true token (Yang 2025, arXiv 2503.01224).

    The target is softmax of the (detached) logits with the label's at −∞, so that the gradient in the logits is
    p − target: bounded, and 0 once the true token has no probability. The first `ignore_first` answer tokens do not
    count, as in a footnote of the paper and in its code. ≥ 0.
    """
    counted = mask.bool() & (mask.cumsum(1) > ignore_first)
    picked, gold = logits[counted].float(), labels[counted].unsqueeze(1)
    target = picked.detach().scatter(1, gold, -torch.inf).softmax(-1)
    return F.cross_entropy(picked, target, reduction="sum") / counted.sum().clamp(min=1)


def undial(
    logits: Tensor, labels: Tensor, mask: Tensor, reference_logits: Tensor, beta: NonNegative = 10.0
) -> Tensor:
    """UNDIAL: cross-entropy to softmax(z_ref − β · onehot(y)) (Dong et al. 2024, arXiv 2402.10052).

    Distillation from the original model with the true token's logit lowered by β. ≥ the target's entropy.
    """
    counted = mask.bool()
    gold = labels[counted].unsqueeze(1)
    picked, target = logits[counted].float(), reference_logits[counted].float()
    target = target.scatter_add(1, gold, torch.full_like(gold, -beta, dtype=target.dtype)).softmax(-1)
    return F.cross_entropy(picked, target, reduction="sum") / counted.sum().clamp(min=1)
