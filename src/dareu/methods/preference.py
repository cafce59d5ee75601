"""Losses on whole responses: a length-normalised NPO, and losses that prefer another response to the gold one.

`logps` and `mask` (B, T) are those of the gold answers, `other_logps` and `other_mask` (B, T') those of another
response to the same prompts (a refusal, an alternate answer). All but `refusal_nll` are means over responses.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dareu.config import Positive
from dareu.methods.losses import nll


def simnpo(logps: Tensor, mask: Tensor, beta: Positive = 4.5, delta: float = 0.0) -> Tensor:
    """SimNPO: NPO without a reference (Fan et al. 2024, arXiv 2410.07163).

    −(2/β) · mean_B log σ(β · (nll/|y| − δ)), nll summed over the |y| tokens of a response. ≥ 0. Its gradient is that
    of mean_B log π(y|x)/|y|, each response weighted by 2σ(−β(nll/|y| − δ)).
    """
    mean_nll = -(logps * mask).sum(1) / mask.sum(1).clamp(min=1)
    return -(2 / beta) * F.logsigmoid(beta * (mean_nll - delta)).mean()


def refusal_nll(other_logps: Tensor, other_mask: Tensor) -> Tensor:
    """Supervised IDK: mean negative log-likelihood of a refusal's tokens (Maini et al. 2024, arXiv 2401.06121). ≥ 0."""
    return nll(other_logps, other_mask)


def dpo(
    logps: Tensor,
    mask: Tensor,
    reference_logps: Tensor,
    other_logps: Tensor,
    other_mask: Tensor,
    other_reference_logps: Tensor,
    beta: Positive = 0.1,
) -> Tensor:
    """Direct preference optimisation with the gold answer as the rejected one (Rafailov et al. 2023, arXiv 2305.18290).

    −(2/β) · mean_B log σ(β · (log-ratio of the other response − log-ratio of the gold one)), a log-ratio being
    log π_θ(y|x) − log π_ref(y|x), summed over a response's tokens. The factor 2 makes it NPO where nothing is
    preferred. With refusals it is IDK's DPO (Maini et al. 2024, arXiv 2401.06121), with alternate answers AltPO
    (Mekala et al. 2024, arXiv 2409.13474). ≥ 0; (2/β)·ln 2 where θ = ref.
    """
    gold = ((logps - reference_logps) * mask).sum(1)
    other = ((other_logps - other_reference_logps) * other_mask).sum(1)
    return -(2 / beta) * F.logsigmoid(beta * (other - gold)).mean()
