"""Supervised IDK: fine-tune on refusals to the forget prompts (Maini et al. 2024, arXiv 2401.06121), with a retain
term. A row meets another refusal in each epoch.
"""

from torch import Tensor

from dareu.methods.loss_method import LossMethod
from dareu.training.losses import nll


def refusal_nll(other_logps: Tensor, other_mask: Tensor) -> Tensor:
    """Mean negative log-likelihood of a refusal's tokens. ≥ 0."""
    return nll(other_logps, other_mask)


METHOD = LossMethod(
    refusal_nll, reads=("other_logps", "other_mask"), pairs="refusal", mean_over="other_tokens"
)
