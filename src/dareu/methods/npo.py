"""NPO: negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868), with a retain term."""

import torch.nn.functional as F
from torch import Tensor

from dareu.config import Positive
from dareu.methods.loss_method import LossMethod


def npo(logps: Tensor, mask: Tensor, reference_logps: Tensor, beta: Positive = 0.1) -> Tensor:
    """−(2/β) · mean_B log σ(−β · (log π_θ(y|x) − log π_ref(y|x))), the sums over a response's tokens (eq. 3).

    ≥ 0; (2/β)·ln 2 where θ = ref. Its gradient is that of mean_B log π_θ(y|x), each response weighted by
    2σ(β·log(π_θ/π_ref)): for β → 0, and where θ = ref, it is that of gradient ascent on the sums.
    """
    log_ratio = ((logps - reference_logps) * mask).sum(1)
    return -(2 / beta) * F.logsigmoid(-beta * log_ratio).mean()


METHOD = LossMethod(npo, reads=("logps", "mask", "reference_logps"), mean_over="rows")
