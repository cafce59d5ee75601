"""From dense rewards to what enters the loss: by a critic or the prompt's other rollouts, gold answers among them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dareu.config import DareUConfig
from dareu.rewards import returns
from dareu.rewards.base import Prompt
from dareu.training.critic import Critic

GROUPED = {"rloo": returns.rloo_advantages, "grpo": returns.group_advantages}


class Estimator:
    """`advantage` applied to a batch of rollouts; `accelerator` gathers numbers from other processes."""

    def __init__(self, config: DareUConfig, critic: Critic | None, accelerator: Any) -> None:
        self.config, self.group = config.advantage, config.num_generations
        self.critic, self.accelerator = critic, accelerator

    @torch.no_grad()
    def __call__(
        self, dense: Tensor, level: bool, mask: Tensor, full: Tensor, attention: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`advantages` (B, T), beside them `returns` and `old_values` where there is a critic; and numbers to log.

        `dense` and `mask` are (B, T), `full` and `attention` (B, P+T) prompt and response; `level` as in `Rewarded`.
        """
        cfg = self.config
        if self.critic is not None:
            self.critic.eval()
            values = self.critic(full, attention, mask.size(1)) * mask
            advantages, targets = returns.gae(dense, values, mask, cfg.gamma, cfg.gae_lambda)
            beside = {"returns": targets, "old_values": values}
            numbers = {"explained_variance": returns.explained_variance(values, targets, mask)}
        else:
            advantages, silent = self._in_groups(returns.discounted_returns(dense, mask, cfg.gamma), mask)
            beside, numbers = {}, {"silent_groups": silent}
        gamma = cfg.gamma if level else 1.0  # returns of levels grow with 1/(1−γ), others do not
        moments = self._moments(advantages, mask)
        beside["advantages"] = returns.shape_advantages(advantages, mask, cfg.mode, gamma, cfg.scale, moments)
        return beside, numbers

    def _in_groups(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns against those of the prompt's other rollouts, which may lie on another process, (B, T); and the
        share of groups that say nothing, all their rollouts being of one return.
        """
        both = torch.stack([values, mask.to(values.dtype)], -1)
        everywhere = self.accelerator.gather(self.accelerator.pad_across_processes(both, dim=1))
        advantages = GROUPED[self.config.estimator](everywhere[..., 0], everywhere[..., 1], self.group)
        silent = (advantages.reshape(-1, self.group * advantages.size(1)).abs() < 1e-6).all(1).float().mean()
        first = self.accelerator.process_index * len(values)
        return advantages[first : first + len(values), : values.size(1)], silent

    def _moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over the response tokens of all processes."""
        m = mask.to(values.dtype)
        sums = torch.stack([m.sum(), (values * m).sum(), (values**2 * m).sum()])
        count, first, second = self.accelerator.reduce(sums, reduction="sum")
        mean = first / count.clamp(min=1)
        return mean, (second / count.clamp(min=1) - mean**2).clamp(min=0)


def gold_rows(prompts: Sequence[Prompt], share: float) -> list[bool]:
    """Which rollouts are gold answers: the given share of those to forget prompts, evenly spread over the batch."""
    chosen, seen = [], 0
    for prompt in prompts:
        forget = prompt.kind == "forget"
        chosen.append(forget and math.floor((seen + 1) * share) > math.floor(seen * share))
        seen += forget
    return chosen


def importance_weighted(advantages: Tensor, old_logps: Tensor, gold: Tensor) -> Tensor:
    """A_t · π_old(y_t) on gold rows, A_t elsewhere; `advantages`, `old_logps` (B, T), `gold` (B,) bool.

    A gold answer was drawn with probability 1, not from the policy, so that a policy gradient weights each of its
    tokens by π_old(y_t)/1: the truncated importance weight of a token (Yan et al. 2025, LUFFY, arXiv 2504.14945, give
    off-policy traces the ratio π/1 too). PPO's ratio and its clipping come on top, as for every rollout.
    """
    return torch.where(gold.unsqueeze(1), advantages * old_logps.exp(), advantages)
