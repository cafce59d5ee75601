"""Gold answers among the rollouts, so that what the policy no longer samples is unlearned too. Pure.

A gold answer was drawn with probability 1, not from the policy, so that a policy gradient weights each of its tokens by
π_old(y_t)/1: the truncated importance weight of a token (Yan et al. 2025, LUFFY, arXiv 2504.14945, give off-policy
traces the ratio π/1 too). PPO's ratio π/π_old and its clipping come on top, as for every rollout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dareu.rewards.base import Prompt


def gold_rows(prompts: Sequence[Prompt], share: float) -> list[bool]:
    """Which rollouts are gold answers: the given share of those to forget prompts, evenly spread over the batch."""
    chosen, seen = [], 0
    for prompt in prompts:
        forget = prompt.kind == "forget"
        chosen.append(forget and math.floor((seen + 1) * share) > math.floor(seen * share))
        seen += forget
    return chosen


def importance_weighted(advantages: Tensor, old_logps: Tensor, gold: Tensor) -> Tensor:
    """A_t · π_old(y_t) on gold rows, A_t elsewhere; `advantages`, `old_logps` (B, T), `gold` (B,) bool."""
    return torch.where(gold.unsqueeze(1), advantages * old_logps.exp(), advantages)
