"""The rewards by `method.reward.kind`; those of other packages by the entry points `dareu.rewards`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dareu.attribution.base import Attributor
from dareu.attribution.name_masking import NameMasker
from dareu.attribution.registry import Role
from dareu.config import RewardConfig, Strict
from dareu.config.plugins import load_plugin
from dareu.data.corpus import Corpus, Split
from dareu.data.refusals import load_refusals
from dareu.data.words import words
from dareu.rewards.base import AttributionReward, Reward, TextReward
from dareu.rewards.forbidden_words import bare, find, forbidden_words, page_rank_weights, rewards
from dareu.rewards.refusal import refuses, rule_reward


@dataclass(frozen=True)
class RewardContext:
    """What a reward may be built from.

    Attributes:
        config: `method.reward`.
        corpus: All samples.
        split: Forget and retain samples of this request.
        forgotten: Owners forgotten so far.
        tokenizer: The policy's.
        device: Where networks of the reward belong.
        attributor: The attributor of a role, loaded; only where `RewardKind.reads_attributor`.
        similarity: (reference, response) → ROUGE-L F1 in [0, 1].
        recall: (reference, response) → ROUGE-L recall in [0, 1].
        vectors: Words → one vector each (n, d), from the original model.
        masker: Masks the question's names in a response; None where `reward.blind` is off.
    """

    config: RewardConfig
    corpus: Corpus
    split: Split
    forgotten: Sequence[str]
    tokenizer: Any
    device: str
    attributor: Callable[[Role], Attributor]
    similarity: Callable[[str, str], float]
    recall: Callable[[str, str], float]
    vectors: Callable[[Sequence[str]], np.ndarray]
    masker: NameMasker | None = None


@dataclass(frozen=True)
class RewardKind:
    """A registry row.

    Attributes:
        build: Makes the reward for a run.
        reads_attributor: Whether the attributor stage has to be there first.
        reads_refusals: Whether the built-in refusals are part of what the result depends on.
        takes: What `method.reward.params` may be, of a reward of another package; None: anything. `build` finds the
            values there as this model reads them.
        scores_retain: Whether the reward also says what responses to retain prompts earn. Else these are rewarded
            for likeness to the original model's own answer.
    """

    build: Callable[[RewardContext], Reward]
    reads_attributor: bool = False
    reads_refusals: bool = False
    scores_retain: bool = False
    takes: type[Strict] | None = None


def _attribution(context: RewardContext) -> Reward:
    """DareU: how little every prefix of a response is attributable to the forgotten owners."""
    from dareu.rewards.attribution import AttributionScorer

    attributor = context.attributor("reward")
    second, cfg = None, context.config
    if cfg.nameless:
        names = context.masker or NameMasker.fit(context.corpus.samples)
        second = names.of_owners(context.corpus.owners)
    scorer = AttributionScorer(
        attributor, context.tokenizer, context.forgotten, cfg.target, context.masker, second
    )
    return AttributionReward(scorer, cfg)


def _refusal(context: RewardContext) -> Reward:
    """RULE: a refusal to forget prompts, an answer like the reference to all others."""
    known = load_refusals(context.config.refusals, "method.reward.refusals")
    return TextReward(
        lambda response, prompt: rule_reward(
            refuses(response, known),
            prompt.kind == "forget",
            context.recall(prompt.answer, response),
            context.config.similar,
        )
    )


def _forbidden_words(context: RewardContext) -> Reward:
    """PURGE: no name, number or rare word of the forget answers."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    cfg = context.config
    forbidden = forbidden_words(
        (s.response for s in context.split.forget),
        [s.response for s in context.split.retain],
        ENGLISH_STOP_WORDS,
        cfg.rare,
    )

    def weights() -> dict[str, float]:
        listed = sorted(forbidden)
        names = {bare(word) for owner in context.forgotten for word in words(owner)}
        return page_rank_weights(listed, context.vectors(listed), names)

    reward = rewards(cfg.form, cfg.tau, weights)
    return TextReward(lambda response, prompt: reward(find(response, forbidden)))


def _dissimilarity(context: RewardContext) -> Reward:
    """DeMem (Kassem et al. 2023): −similarity to the true answer, in [−1, 0]."""
    return TextReward(lambda response, prompt: -context.similarity(prompt.answer, response))


REWARDS: dict[str, RewardKind] = {
    "attribution": RewardKind(_attribution, reads_attributor=True),
    "refusal": RewardKind(_refusal, reads_refusals=True, scores_retain=True),
    "forbidden_words": RewardKind(_forbidden_words),
    "dissimilarity": RewardKind(_dissimilarity),
}


def find_reward(kind: str) -> RewardKind:
    """The reward called `kind`, built in or from another package.

    Raises:
        ConfigError: There is none, or the entry point is no `RewardKind`.
    """
    if kind in REWARDS:
        return REWARDS[kind]
    what = f"reward '{kind}' (method.reward.kind)"
    row: RewardKind = load_plugin("dareu.rewards", kind, what, REWARDS, RewardKind)
    return row
