"""Losses that several methods share, as pure functions of token log-probabilities or logits.

`logps` and `mask` (B, T) are those of `models.logprobs.token_logprobs`: shifted and masked once, there. Each function
returns a scalar to be minimised, unless it says otherwise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dareu.models.logprobs import masked_mean


def mean(values: Tensor) -> Tensor:
    """Mean of all values; 0 of none."""
    return values.sum() / max(values.numel(), 1)


def nll(logps: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood over answer tokens. ≥ 0."""
    return -masked_mean(logps, mask)


def js_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Jensen–Shannon divergence over the last dimension, in nats: `(..., V)`, `(..., V)` → `(...)`. In [0, ln 2].

    ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½(p + q).
    """
    log_p, log_q = F.log_softmax(p_logits.float(), -1), F.log_softmax(q_logits.float(), -1)
    p, q = log_p.exp(), log_q.exp()
    log_m = (0.5 * (p + q)).clamp(min=torch.finfo(p.dtype).tiny).log()
    return 0.5 * (p * (log_p - log_m) + q * (log_q - log_m)).sum(-1)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None = None
) -> Tensor:
    """½ · mean (V − R)², with `clip` PPO's ½ · mean max((V − R)², (V_clip − R)²) (Schulman et al. 2017). ≥ 0.

    V_clip moves no further than `clip` from the values before the update, in units of the returns.
    """
    worst = (values - returns) ** 2
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        worst = worst.maximum((clipped - returns) ** 2)
    return 0.5 * masked_mean(worst, mask)


def kl_k3(logps: Tensor, other_logps: Tensor, mask: Tensor) -> Tensor:
    """KL(π ‖ other) on samples of π: mean over tokens of d − ln d − 1, d = other/π (Schulman's k3, as in GRPO). ≥ 0."""
    log_ratio = (other_logps - logps) * mask
    return masked_mean(log_ratio.exp() - log_ratio - 1, mask)
