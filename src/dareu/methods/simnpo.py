"""SimNPO: NPO without a reference, normalised by length (Fan et al. 2024, arXiv 2410.07163), with a retain term."""

import torch.nn.functional as F
from torch import Tensor

from dareu.config import Positive
from dareu.methods.loss_method import LossMethod


def simnpo(logps: Tensor, mask: Tensor, beta: Positive = 4.5, delta: float = 0.0) -> Tensor:
    """−(2/β) · mean_B log σ(β · (nll/|y| − δ)), nll summed over the |y| tokens of a response. ≥ 0.

    Its gradient is that of mean_B log π(y|x)/|y|, each response weighted by 2σ(−β(nll/|y| − δ)).
    """
    mean_nll = -(logps * mask).sum(1) / mask.sum(1).clamp(min=1)
    return -(2 / beta) * F.logsigmoid(beta * (mean_nll - delta)).mean()


METHOD = LossMethod(simnpo, mean_over="rows")
