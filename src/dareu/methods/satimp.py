"""SatImp: gradient ascent weighted by saturation and importance (Yang et al. 2025, arXiv 2505.11953)."""

from torch import Tensor

from dareu.config import NonNegative
from dareu.methods.loss_method import LossMethod
from dareu.models.logprobs import masked_mean


def satimp(logps: Tensor, mask: Tensor, beta1: NonNegative = 5.0, beta2: NonNegative = 0.1) -> Tensor:
    """Mean over answer tokens of p^β1 · (1 − p)^β2 · log p. ≤ 0; β2 = 0 is WGA.

    p^β1 (saturation) takes weight from tokens that are forgotten already, (1 − p)^β2 (importance) from those that the
    model is sure of. The weights carry no gradient.
    """
    then = logps.detach()
    weight = (beta1 * then).exp() * (-then.expm1()).clamp(min=0) ** beta2
    return masked_mean(weight * logps, mask)


METHOD = LossMethod(satimp)
