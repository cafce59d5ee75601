"""Gradient ascent (Jang et al. 2023; Yao et al. 2024): make the forget answers less likely.

L = E_forget log π_θ(y|x)
"""

from torch import Tensor

from dareu.methods.loss_method import LossMethod
from dareu.training.losses import nll


def gradient_ascent(logps: Tensor, mask: Tensor) -> Tensor:
    """−NLL of the forget answers. Unbounded below."""
    return -nll(logps, mask)


METHOD = LossMethod(gradient_ascent)
