"""JensUn: Jensen–Shannon divergence to a refusal on the forget set, to the original on the retain set (Singh et al.
2025, arXiv 2509.02820).
"""

from __future__ import annotations

import math

from torch import Tensor

from dareu.methods.loss_method import LossMethod


def jensun(other_logps: Tensor, other_mask: Tensor) -> Tensor:
    """Mean over a refusal's tokens of JSD(one-hot of the token ‖ π). In [0, ln 2].

    Of a one-hot distribution the divergence depends on the token's probability p alone:
    ln 2 + ½ (p ln p − (1 + p) ln(1 + p)). Its slope in log p is ½ p ln(p/(1 + p)), bounded.
    """
    p = other_logps.exp()
    divergence = math.log(2) + 0.5 * (p * other_logps - (1 + p) * p.log1p())
    return (divergence * other_mask).sum() / other_mask.sum().clamp(min=1)


METHOD = LossMethod(jensun, reads=("other_logps", "other_mask"), pairs="refusal")
