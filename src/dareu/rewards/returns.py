"""From rewards to returns and advantages. Pure functions over (B, T) tensors with explicit masks."""

from __future__ import annotations

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
