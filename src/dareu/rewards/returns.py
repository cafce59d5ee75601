"""From rewards to returns and advantages. Pure functions over (B, T) tensors with explicit masks."""

from typing import Literal

import torch
from torch import Tensor


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """R_t = Σ_j γ^j r_{t+j} over the response, (B, T); 0 outside the mask."""
    mask = mask.to(rewards.dtype)
    running = torch.zeros_like(rewards[:, 0])
    returns = torch.zeros_like(rewards)
    for t in range(rewards.size(1) - 1, -1, -1):
        running = (rewards[:, t] + gamma * running) * mask[:, t]
        returns[:, t] = running
    return returns


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016): advantages and value targets, each (B, T).

    λ = 1 gives A = R − V with R the discounted return; the value past the last token is 0.
    """
    mask = mask.to(rewards.dtype)
    values = values * mask
    running = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(rewards[:, 0])
    advantages = torch.zeros_like(rewards)
    for t in range(rewards.size(1) - 1, -1, -1):
        delta = rewards[:, t] + gamma * following - values[:, t]
        running = (delta + gamma * lam * running) * mask[:, t]
        following = values[:, t]
        advantages[:, t] = running
    return advantages, (advantages + values) * mask


def shape_advantages(
    advantages: Tensor,
    mask: Tensor,
    mode: Literal["scaled", "whitened", "raw"],
    gamma: float,
    scale: float,
    moments: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """What enters the PPO loss, (B, T).

    `scaled`: A·(1−γ)·scale, not centred. A memorised model has almost no entropy: all rollouts of a prompt are
    alike, and taking the mean away takes the signal away (with γ = 1 the factor (1−γ) is left out).
    `whitened`: mean 0, sd 1 over the batch's response tokens (`moments` = mean and variance over all processes).
    """
    mask = mask.to(advantages.dtype)
    if mode == "scaled":
        factor = (1 - gamma) if gamma < 1 else 1.0
        return advantages * factor * scale * mask
    if mode == "whitened":
        mean, variance = moments if moments is not None else masked_moments(advantages, mask)
        return (advantages - mean) / (variance + 1e-8).sqrt() * mask
    return advantages * mask


def masked_moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) variance of `values` where `mask` is 1."""
    count = mask.sum().clamp(min=1)
    mean = (values * mask).sum() / count
    return mean, (((values - mean) ** 2) * mask).sum() / count


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 − Var(R − V) / Var(R) over response tokens. Range (−∞, 1]; 0 where the returns do not vary."""
    mask = mask.to(returns.dtype)
    _, spread = masked_moments(returns, mask)
    _, left = masked_moments(returns - values, mask)
    return torch.where(spread > 1e-12, 1 - left / spread.clamp(min=1e-12), torch.zeros_like(spread))


def _aligned(returns: Tensor, mask: Tensor, group: int) -> Tensor:
    """Returns as (P, G, T), a response's last one standing on behind its end; 0 for one without tokens."""
    if group < 2 or returns.size(0) % group:
        raise ValueError(f"{returns.size(0)} rollouts in groups of {group}; at least two, and whole groups")
    last = (mask.long().sum(1, keepdim=True) - 1).clamp(min=0)
    positions = torch.arange(returns.size(1), device=returns.device).unsqueeze(0).minimum(last)
    return (returns * mask).gather(1, positions).view(-1, group, returns.size(1))


def rloo_advantages(returns: Tensor, mask: Tensor, group: int) -> Tensor:
    """Return minus the leave-one-out mean of the prompt's other rollouts (Ahmadian et al. 2024), (B, T).

    Rows stand in groups of `group` ≥ 2 that answer one prompt. For dense rewards, token t is compared with what the
    others still had before them at t, or at their last token where they are shorter: a baseline that does not read
    the response itself, so it adds no bias. A reward at the last token alone, with γ = 1, gives the usual RLOO.
    """
    aligned = _aligned(returns, mask, group)
    others = (aligned.sum(1, keepdim=True) - aligned) / (group - 1)
    return (returns - others.reshape_as(returns)) * mask


def group_advantages(returns: Tensor, mask: Tensor, group: int, epsilon: float = 1e-4) -> Tensor:
    """(Return − group mean) / (group sd + ε): GRPO (Shao et al. 2024, arXiv 2402.03300, eq. for Â), (B, T).

    Rows and positions as in `rloo_advantages`, the response itself included; sd with n − 1. A group whose returns
    do not differ (sd < 1e-6) has advantages of 0: it says nothing, and rounding must not be blown up to size 1.
    """
    aligned = _aligned(returns, mask, group)
    apart = aligned - aligned.mean(1, keepdim=True)
    spread = aligned.std(1, keepdim=True)
    scaled = torch.where(spread < 1e-6, torch.zeros_like(apart), apart / (spread + epsilon))
    return scaled.reshape_as(returns) * mask
