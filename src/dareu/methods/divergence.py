"""Losses that are divergences: Jensen–Shannon to a refusal or to the reference, and FLAT's f-divergences."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

FDivergence = Literal["tv", "kl", "js", "pearson"]


def js_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Jensen–Shannon divergence over the last dimension, in nats: `(..., V)`, `(..., V)` → `(...)`. In [0, ln 2].

    ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½(p + q).
    """
    log_p, log_q = F.log_softmax(p_logits.float(), -1), F.log_softmax(q_logits.float(), -1)
    p, q = log_p.exp(), log_q.exp()
    log_m = (0.5 * (p + q)).clamp(min=torch.finfo(p.dtype).tiny).log()
    return 0.5 * (p * (log_p - log_m) + q * (log_q - log_m)).sum(-1)


def jensun(other_logps: Tensor, other_mask: Tensor) -> Tensor:
    """JensUn's forget term: mean JSD(one-hot of a refusal's token ‖ π) (Singh et al. 2025, arXiv 2509.02820).

    Of a one-hot distribution the divergence depends on the token's probability p alone:
    ln 2 + ½ (p ln p − (1 + p) ln(1 + p)). In [0, ln 2]; its slope in log p is ½ p ln(p/(1 + p)), bounded. `other_logps`
    and `other_mask` (B, T) are those of the refusals; a mean over their tokens.
    """
    p = other_logps.exp()
    divergence = math.log(2) + 0.5 * (p * other_logps - (1 + p) * p.log1p())
    return (divergence * other_mask).sum() / other_mask.sum().clamp(min=1)


def flat(
    logps: Tensor, mask: Tensor, other_logps: Tensor, other_mask: Tensor, divergence: FDivergence = "tv"
) -> Tensor:
    """FLAT: a variational f-divergence between template and forget answer (Wang et al. 2024, arXiv 2410.11143).

    −mean_B [ g*(P_e) − f*(g*(P_f)) ], P being the mean probability of a response's tokens, (1/|y|) Σ_t π(y_t | …), of
    the template answer (`other_…`: a refusal) and of the forget answer. g* and f*∘g* of the paper's table:

        tv       ½ tanh v                ½ tanh v
        kl       v                       exp(v − 1)
        js       ln 2 − ln(1 + e^−v)     v + ln(1 + e^−v) − ln 2
        pearson  v                       v²/4 + v

    No retain data and no reference. Each is bounded, since P is in [0, 1].
    """
    template = (other_logps.exp() * other_mask).sum(1) / other_mask.sum(1).clamp(min=1)
    forget = (logps.exp() * mask).sum(1) / mask.sum(1).clamp(min=1)
    if divergence == "tv":
        gain, price = template.tanh() / 2, forget.tanh() / 2
    elif divergence == "kl":
        gain, price = template, (forget - 1).exp()
    elif divergence == "js":
        gain, price = math.log(2) + F.logsigmoid(template), F.softplus(forget) - math.log(2)
    else:
        gain, price = template, forget**2 / 4 + forget
    return (price - gain).mean()
