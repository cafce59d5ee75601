"""What a batch of rollouts earns: the protocol of a reward, its implementations, and what is added to any of them.

A reward knows the responses and the samples they answer, nothing of the trainer. The mathematics is in `rewards`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from dareu.config import RewardConfig
from dareu.models.logprobs import masked_mean
from dareu.rewards import attribution


def last_token(mask: Tensor) -> Tensor:
    """1 at the last token of each response, (B, T); a row without tokens has none."""
    mask = mask.long()
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask * (1 - following)


def unfinished_penalty(mask: Tensor, finished: Tensor) -> Tensor:
    """−1 at the last token of a response that did not end by itself. `finished` is (B,) bool."""
    return -(last_token(mask) * (~finished).long().unsqueeze(1)).float()


def empty_penalty(mask: Tensor, empty: Tensor) -> Tensor:
    """−1 at the last token of a response without a word. `empty` is (B,) bool."""
    return -(last_token(mask) * empty.long().unsqueeze(1)).float()


def repetition_penalty(ids: Tensor, mask: Tensor, n: int = 4) -> Tensor:
    """−1 at each token that closes an n-gram seen before in the same response, (B, T)."""
    penalty = torch.zeros_like(mask, dtype=torch.float32)
    for row in range(ids.size(0)):
        tokens = ids[row][mask[row].bool()].tolist()
        seen: set[tuple[int, ...]] = set()
        for end in range(n, len(tokens) + 1):
            gram = tuple(tokens[end - n : end])
            if gram in seen:
                penalty[row, end - 1] = -1.0
            seen.add(gram)
    return penalty


def fluency(reference_logps: Tensor, mask: Tensor, clip: float = 5.0) -> Tensor:
    """max(log p_base(y_t | …), −clip) / clip: each token's log-likelihood under a frozen model, in [−1, 0]."""
    return reference_logps.clamp(min=-clip, max=0.0) / clip * mask


@dataclass(frozen=True)
class Prompt:
    """A prompt that is sampled from, rendered and raw, and what a reward may read of the sample behind it."""

    prompt: str
    query: str
    owner: str
    answer: str = ""
    own: str = ""  # what the original model answers, greedily; of retain prompts
    kind: Literal["forget", "retain", "boundary"] = "forget"
    answer_ids: tuple[int, ...] = ()  # of the answer, as a rollout has them; with `offpolicy` alone


@dataclass(frozen=True)
class Rollouts:
    """Responses: token ids and mask (B, T), right-padded; whether each ended by itself (B,); texts; prompts.

    `gold`: the rows that are gold answers in place of samples, (B,) bool; None where all are samples.
    """

    ids: Tensor
    mask: Tensor
    finished: Tensor
    texts: Sequence[str]
    prompts: Sequence[Prompt]
    gold: Tensor | None = None

    @property
    def forget(self) -> Tensor:
        """1 for responses to forget prompts, (B,)."""
        return torch.tensor([float(a.kind == "forget") for a in self.prompts], device=self.ids.device)

    @property
    def sampled(self) -> Tensor:
        """1 for what the policy itself answers to forget prompts, (B,)."""
        return self.forget if self.gold is None else self.forget * ~self.gold

    @property
    def empty(self) -> Tensor:
        """Whether a response has no word, (B,) bool."""
        return torch.tensor([not any(c.isalnum() for c in t) for t in self.texts], device=self.ids.device)


@dataclass(frozen=True)
class Rewarded:
    """A reward a token (B, T), or one a response (B,).

    `level`: each token is paid what the response is worth so far, so that returns grow with 1/(1−γ).
    `logged`: numbers for the log, each a mean and its weight, so that processes with few forget prompts count less.
    `nobody`: 1 where a response is taken for broken text, (B,); None where the reward cannot tell.
    """

    values: Tensor
    level: bool = False
    logged: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    nobody: Tensor | None = None

    def dense(self, mask: Tensor) -> Tensor:
        """(B, T): a reward for the whole response is paid at its last token."""
        return self.values * mask if self.values.dim() == 2 else at_the_end(self.values, mask)


Reward = Callable[[Rollouts], Rewarded]  # of a batch of rollouts, those to retain prompts included


class Scorer(Protocol):
    """How attributable every prefix of a response is to the forget owners (or to the query's own).

    `prior` is the score of an empty text.
    """

    prior: float

    def __call__(
        self, ids: Tensor, mask: Tensor, owners: Sequence[str], queries: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Scores (B, T) and the probability of the background class (B, T), both in [0, 1]."""


def at_the_end(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) at the last token of each response, (B, T)."""
    return last_token(mask) * values.unsqueeze(1)


@dataclass(frozen=True)
class AttributionReward:
    """DareU's: a scorer's attribution of every prefix, transformed. Dense."""

    scorer: Scorer
    config: RewardConfig

    def __call__(self, rollouts: Rollouts) -> Rewarded:
        cfg, mask = self.config, rollouts.mask
        scores, nobody = self.scorer(
            rollouts.ids, mask, [a.owner for a in rollouts.prompts], [a.query for a in rollouts.prompts]
        )
        floor = attribution.score_floor(self.scorer.prior, cfg.floor, cfg.transform, cfg.scale)
        values = attribution.attribution_reward(
            (scores.clamp(min=floor) + cfg.nobody_weight * nobody).clamp(0, 1),
            mask,
            cfg.transform,
            cfg.scale,
            cfg.epsilon,
            cfg.granularity,
            cfg.slices,
            cfg.prefix_mean,
            cfg.credit,
            max(self.scorer.prior, floor),  # without the background class, which an empty text is
        )
        forget = rollouts.sampled
        counted, last = mask * forget.unsqueeze(1), last_token(mask)
        logged = {
            "saturated_share": (attribution.saturated_share(scores, counted, cfg.scale), counted.sum()),
            "rollout_attribution": (masked_mean((scores * last).sum(1), forget), forget.sum()),
        }
        return Rewarded(values, cfg.credit == "level", logged, ((nobody * last).sum(1) > 0.5).float())


@dataclass(frozen=True)
class TextReward:
    """A number for each response from its text and the prompt that it answers."""

    score: Callable[[str, Prompt], float]

    def __call__(self, rollouts: Rollouts) -> Rewarded:
        values = [
            self.score(text, prompt) for text, prompt in zip(rollouts.texts, rollouts.prompts, strict=True)
        ]
        return Rewarded(torch.tensor(values, dtype=torch.float32, device=rollouts.ids.device))


@dataclass(frozen=True)
class MixedReward:
    """One reward for responses to forget prompts, another, for the whole response, for those to retain prompts.

    Where the first pays levels, so does the second, at every token, as `granularity: sequence` does: both are of one
    size then. Else it is paid at the last token.
    """

    forget: Reward
    retain: Reward

    def __call__(self, rollouts: Rollouts) -> Rewarded:
        forgotten, kept = self.forget(rollouts), self.retain(rollouts).values
        chosen = rollouts.forget > 0
        if forgotten.values.dim() == 2:
            kept = kept.unsqueeze(1) * rollouts.mask if forgotten.level else at_the_end(kept, rollouts.mask)
            chosen = chosen.unsqueeze(1)
        return replace(forgotten, values=torch.where(chosen, forgotten.values, kept))


def shaped(
    rewarded: Rewarded, rollouts: Rollouts, cfg: RewardConfig, kl: Tensor, frozen: Tensor | None
) -> Tensor:
    """The reward with KL term and guards, (B, T).

    `kl` (B, T); `frozen` (B, T), the original's log-likelihoods, which `reward.fluency` alone reads.
    """
    ids, mask = rollouts.ids, rollouts.mask
    dense = rewarded.dense(mask) - cfg.kl * kl
    if cfg.length_penalty:
        dense = dense + cfg.length_penalty * unfinished_penalty(mask, rollouts.finished)
    if cfg.empty_penalty:
        dense = dense + cfg.empty_penalty * empty_penalty(mask, rollouts.empty)
    if cfg.repetition_penalty:
        dense = dense + cfg.repetition_penalty * repetition_penalty(ids, mask)
    if cfg.fluency:
        assert frozen is not None
        dense = dense + cfg.fluency * fluency(frozen, mask, cfg.fluency_clip)
    return dense * mask


def by_kind(rewarded: Rewarded, rollouts: Rollouts) -> dict[str, tuple[Tensor, Tensor]]:
    """The reward proper, without KL term and guards, of responses to forget and to retain prompts: means and weights.

    A mean over responses where the reward is for the whole response, over tokens where it is dense.
    """
    forget, mask = rollouts.forget, rollouts.mask
    dense = rewarded.values.dim() == 2
    shares = {"reward_forget": forget, "reward_retain": 1 - forget}
    counted = {name: mask * rows.unsqueeze(1) if dense else rows for name, rows in shares.items()}
    return {name: (masked_mean(rewarded.values, rows), rows.sum()) for name, rows in counted.items()}
