"""FLAT: an f-divergence between a template answer and the forget answer (Wang et al. 2024, arXiv 2410.11143).

No retain data and no reference.
"""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from dareu.methods.loss_method import LossMethod

FDivergence = Literal["tv", "kl", "js", "pearson"]


def flat(
    logps: Tensor, mask: Tensor, other_logps: Tensor, other_mask: Tensor, divergence: FDivergence = "tv"
) -> Tensor:
    """−mean_B [ g*(P_e) − f*(g*(P_f)) ], the variational form of an f-divergence. Bounded, since P is in [0, 1].

    P is the mean probability of a response's tokens, (1/|y|) Σ_t π(y_t | …), of the template answer (`other_…`: a
    refusal) and of the forget answer. g* and f*∘g* of the paper's table:

        tv       ½ tanh v                ½ tanh v
        kl       v                       exp(v − 1)
        js       ln 2 − ln(1 + e^−v)     v + ln(1 + e^−v) − ln 2
        pearson  v                       v²/4 + v
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


METHOD = LossMethod(
    flat, reads=("logps", "mask", "other_logps", "other_mask"), pairs="refusal", mean_over="rows"
)
