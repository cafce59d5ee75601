"""IDK by DPO: prefer refusals to the forget answers (Maini et al. 2024, arXiv 2401.06121), with a retain term."""

import torch.nn.functional as F
from torch import Tensor

from dareu.config import Positive
from dareu.methods.loss_method import LossMethod

READS = ("logps", "mask", "reference_logps", "other_logps", "other_mask", "other_reference_logps")


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
    log π_θ(y|x) − log π_ref(y|x), summed over a response's tokens. `logps` and `mask` (B, T) are those of the gold
    answers, `other_…` (B, T') those of the preferred ones. The factor 2 makes it NPO where nothing is preferred.
    ≥ 0; (2/β)·ln 2 where θ = ref.
    """
    gold = ((logps - reference_logps) * mask).sum(1)
    other = ((other_logps - other_reference_logps) * other_mask).sum(1)
    return -(2 / beta) * F.logsigmoid(beta * (other - gold)).mean()


METHOD = LossMethod(dpo, reads=READS, pairs="refusal", mean_over="rows")
