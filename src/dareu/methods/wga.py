"""WGA: gradient ascent weighted by each token's own probability (Wang et al. 2025, arXiv 2502.19301)."""

from torch import Tensor

from dareu.config import NonNegative
from dareu.methods.loss_method import LossMethod
from dareu.models.logprobs import masked_mean


def wga(logps: Tensor, mask: Tensor, beta: NonNegative = 1.0) -> Tensor:
    """Mean over answer tokens of p^β · log p.

    The weight p^β carries no gradient: a token that is forgotten already is pushed less. ≤ 0, and at β > 0 no less
    than −1/(e·β); at β = 0 it is gradient ascent.
    """
    weight = (beta * logps.detach()).exp()
    return masked_mean(weight * logps, mask)


METHOD = LossMethod(wga)
