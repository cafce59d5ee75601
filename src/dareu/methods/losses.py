"""The losses of the baselines, as pure functions of token log-probabilities.

Every function takes `logps` (B, T) and `mask` (B, T) as `models.logprobs.token_logprobs` gives them (shifted and
masked once, there), plus what its formula reads, and returns a scalar to be minimised.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def nll(logps: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood over answer tokens. ≥ 0."""
    return -(logps * mask).sum() / mask.sum().clamp(min=1)


def gradient_ascent(logps: Tensor, mask: Tensor) -> Tensor:
    """−NLL: make the forget answers less likely (Jang et al. 2023; Yao et al. 2024). Unbounded below."""
    return -nll(logps, mask)


def npo(logps: Tensor, mask: Tensor, reference_logps: Tensor, beta: float = 0.1) -> Tensor:
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868, eq. 3).

    −(2/β) · mean_B log σ(−β · (log π_θ(y|x) − log π_ref(y|x))), the sums over a response's tokens. ≥ 0; it is
    (2/β)·ln 2 where θ = ref. Its gradient is that of mean_B log π_θ(y|x), each response weighted by
    2σ(β·log(π_θ/π_ref)): for β → 0, and where θ = ref, it is that of gradient ascent on the sums.
    """
    log_ratio = ((logps - reference_logps) * mask).sum(1)
    return -(2 / beta) * F.logsigmoid(-beta * log_ratio).mean()


def kl_retain(divergence: Tensor, mask: Tensor) -> Tensor:
    """Mean of KL(ref ‖ θ), given for each position (B, T), over answer positions. ≥ 0."""
    return (divergence * mask).sum() / mask.sum().clamp(min=1)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2
) -> Tensor:
    """PPO's clipped value loss ½ · mean max((V − R)², (V_clip − R)²) (Schulman et al. 2017). ≥ 0."""
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    worst = ((values - returns) ** 2).maximum((clipped - returns) ** 2)
    return 0.5 * (worst * mask).sum() / mask.sum().clamp(min=1)


def ppo_loss(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
    """−E_t min(s_t A_t, clip(s_t, 1−ε, 1+ε) A_t), s_t = π/π_old, mean over response tokens (DareU, eq. for J).

    The trainer gets the same number from TRL; this is the reference that the contract test compares it with.
    """
    ratio = (logps - old_logps).exp()
    surrogate = (ratio * advantages).minimum(ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -(surrogate * mask).sum() / mask.sum().clamp(min=1)


def kl_k3(logps: Tensor, other_logps: Tensor, mask: Tensor) -> Tensor:
    """KL(π ‖ other) on samples of π: mean over tokens of d − ln d − 1, d = other/π (Schulman's k3, as in GRPO). ≥ 0."""
    log_ratio = (other_logps - logps) * mask
    return ((log_ratio.exp() - log_ratio - 1) * mask).sum() / mask.sum().clamp(min=1)
