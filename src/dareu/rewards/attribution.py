"""From attribution scores to dense rewards: transform, granularity, prefix mean (DareU, Lu et al. 2026, §4).

Pure functions. `scores` are (B, T): entry t is how far the response's first t+1 tokens are attributable to
the forget owners, in [0, 1]. `mask` is (B, T), 1 on response tokens, right-padded.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Granularity = Literal["token", "slices", "sequence"]


def log_transform(scores: Tensor, scale: float = 1.05, epsilon: float = 1e-4) -> Tensor:
    """χ(b) = clip(ln(1 − clip(b, ε, 1−ε)) / C_seg, −1, 0): the paper's. Range [−1, 0], 0 is unattributable.

    Saturates at −1 from b = 1 − e^(−C_seg) on (.65 for 1.05).
    """
    return (torch.log1p(-scores.clamp(epsilon, 1 - epsilon)) / scale).clamp(-1.0, 0.0)


def log_odds_transform(scores: Tensor, scale: float = 1.05, epsilon: float = 1e-4) -> Tensor:
    """Log-odds, −1 at b ≥ 1−ε and 0 at b ≤ ε, straight in the logit between: no flat part below 1−ε.

    `scale` is not used: the range follows from ε. Range [−1, 0].
    """
    limit = math.log((1 - epsilon) / epsilon)
    # The last clamp takes away rounding, and the infinity of an ε that is lost beside 1 in single precision.
    return (-(torch.logit(scores, eps=epsilon) + limit) / (2 * limit)).clamp(-1.0, 0.0)


def linear_transform(scores: Tensor, scale: float = 1.05, epsilon: float = 1e-4) -> Tensor:
    """−b. Range [−1, 0]."""
    return -scores.clamp(0.0, 1.0)


TRANSFORMS = {"log": log_transform, "log_odds": log_odds_transform, "linear": linear_transform}


def saturated_share(scores: Tensor, mask: Tensor, scale: float = 1.05) -> Tensor:
    """Share of response tokens on the flat part of the log transform, b ≥ 1 − e^(−C_seg). Range [0, 1]."""
    flat = (scores >= 1 - math.exp(-scale)).float() * mask
    return flat.sum() / mask.sum().clamp(min=1)


def score_floor(prior: float, times: float, transform: str = "log", scale: float = 1.05) -> float:
    """Below which a score counts no more: `times` the `prior`, the score of an empty text. In [0, 1].

    With many forget owners `prior` is high, and a multiple of it would lie where the log transform is flat (from
    1 − e^(−C_seg) on), so that every difference were 0: there it is max(`prior`, 1 − e^(−C_seg/4)) at most.
    """
    room = max(prior, 1 - math.exp(-scale / 4)) if transform == "log" else 1.0
    return min(1.0, times * prior, room)


def slice_scores(
    scores: Tensor, mask: Tensor, granularity: Granularity = "token", slices: int = 15
) -> Tensor:
    """DA(i, y[:⌈t/κ⌉·κ]): every token reads the score at the end of its slice, κ = ⌈T/k⌉ (B, T).

    `token` is κ = 1, `sequence` κ = T; T is each response's own length, so the last slice may be shorter.
    """
    if granularity == "token":
        return scores
    lengths = mask.sum(1, keepdim=True).clamp(min=1).long()
    kappa = lengths if granularity == "sequence" else (lengths + slices - 1) // slices
    positions = torch.arange(scores.size(1), device=scores.device).unsqueeze(0)  # the paper's t, minus 1
    ends = ((positions // kappa + 1) * kappa).minimum(lengths) - 1
    return scores.gather(1, ends.clamp(0, scores.size(1) - 1))


def prefix_mean(values: Tensor, mask: Tensor) -> Tensor:
    """mean_{t' ≤ t} of `values` (B, T): token t is scored by everything up to and including itself."""
    counts = mask.cumsum(1).clamp(min=1)
    return (values * mask).cumsum(1) / counts * mask


def differences(values: Tensor, mask: Tensor, start: float = 0.0) -> Tensor:
    """v_t − v_{t−1}, with v_0 = `start`: each token answers for the step that it makes, (B, T).

    Potential-based shaping (Ng et al. 1999): the sum over a response is its last value less `start`, so nothing is
    gained or lost by splitting it; but tokens after the one that gave the owner away are no longer blamed for it.
    `start` is the value of no text at all: with 0 every first token is blamed for the score of no evidence.
    """
    before = torch.cat([torch.full_like(values[:, :1], start), values[:, :-1]], 1)
    return (values - before) * mask


def attribution_reward(
    scores: Tensor,
    mask: Tensor,
    transform: str = "log",
    scale: float = 1.05,
    epsilon: float = 1e-4,
    granularity: Granularity = "token",
    slices: int = 15,
    mean_over_prefix: bool = True,
    credit: Literal["level", "difference"] = "level",
    prior: float = 0.0,
) -> Tensor:
    """The dense reward before the KL term, (B, T), 0 outside the mask: in [−1, 0], differences in [−1, 1].

    `prior` is the score of an empty text, where differences start.
    """
    mask = mask.to(scores.dtype)
    chi = TRANSFORMS[transform](slice_scores(scores, mask, granularity, slices), scale, epsilon)
    level = prefix_mean(chi, mask) if mean_over_prefix else chi * mask
    if credit == "level":
        return level
    start = TRANSFORMS[transform](torch.tensor(float(prior)), scale, epsilon)
    return differences(level, mask, float(start))
