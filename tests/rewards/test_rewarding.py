"""Rewards as the engine asks for them: which prompt has which reward, where it is paid, what is logged. By hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ppo_fixture import config
from torch import Tensor

from dareu.rewards.base import (
    AttributionReward,
    MixedReward,
    Prompt,
    Rewarded,
    Rollouts,
    TextReward,
    by_kind,
    shaped,
)

FORGET, RETAIN = Prompt("<q>", "who", "ann", "gold"), Prompt("<p>", "what", "bo", "plain", "own", "boundary")


def rollouts(asked: Sequence[Prompt], texts: Sequence[str] = ("a b", "")) -> Rollouts:
    """Two responses, of three tokens and of one."""
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    return Rollouts(torch.tensor([[5, 6, 2], [2, 0, 0]]), mask, torch.tensor([True, False]), texts, asked)


class Scores:
    """.5, .9 and 0 of the forget owners for every response; all but the first token of the second is nobody's."""

    prior = 0.2

    def __init__(self) -> None:
        self.asked: Any = None

    def __call__(
        self, ids: Tensor, mask: Tensor, owners: Sequence[str], queries: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        self.asked = (list(owners), list(queries))
        return torch.tensor([[0.5, 0.9, 0.0]] * 2) * mask, torch.tensor([[0.0, 0.0, 0.4], [0.6, 0.0, 0.0]])


def test_attribution_is_asked_with_owners_and_queries() -> None:
    scorer = Scores()
    found = AttributionReward(scorer, config(reward={"transform": "linear"}).reward)(
        rollouts([FORGET, RETAIN])
    )
    assert scorer.asked == (["ann", "bo"], ["who", "what"])
    torch.testing.assert_close(found.values, torch.tensor([[-0.5, -0.9, 0.0], [-0.5, 0.0, 0.0]]))
    assert found.level and found.nobody is not None and found.nobody.tolist() == [0.0, 1.0]
    # Of the forget response alone: one of three tokens is at least .65, its last token has 0.
    assert found.logged["saturated_share"] == (pytest.approx(1 / 3), 3)
    assert found.logged["rollout_attribution"] == (0.0, 1.0)
    changes = config(reward={"transform": "linear", "credit": "difference"}).reward
    assert not AttributionReward(scorer, changes)(rollouts([FORGET, RETAIN])).level


@pytest.mark.parametrize(
    ("floor", "credit", "wanted"),
    [
        # prior .2, floor 1.5 · .2 = .3: 0 counts as .3, and nothing below it is worth a step
        (1.5, "level", [[-0.5, -0.9, -0.3], [-0.5, 0.0, 0.0]]),
        (1.5, "difference", [[-0.2, -0.4, 0.6], [-0.2, 0.0, 0.0]]),  # from −.3
        (0.0, "difference", [[-0.3, -0.4, 0.9], [-0.3, 0.0, 0.0]]),  # from −.2, the empty text's
        (0.5, "difference", [[-0.3, -0.4, 0.8], [-0.3, 0.0, 0.0]]),  # the floor lies below: still from −.2
    ],
)
def test_scores_below_the_floor_count_as_the_floor(floor: float, credit: str, wanted: Any) -> None:
    changes = {"transform": "linear", "credit": credit, "floor": floor}
    found = AttributionReward(Scores(), config(reward=changes).reward)(rollouts([FORGET, RETAIN]))
    torch.testing.assert_close(found.values, torch.tensor(wanted))
    assert found.logged["rollout_attribution"] == (0.0, 1.0)  # of the scores as they are


def test_nobody_is_added_above_the_floor() -> None:
    """Broken text is no cheaper for standing at the floor: .3 + .4 at the third token, .5 + .6 is cut to 1."""
    changes = {"transform": "linear", "floor": 1.5, "nobody_weight": 1.0}
    found = AttributionReward(Scores(), config(reward=changes).reward)(rollouts([FORGET, RETAIN]))
    torch.testing.assert_close(found.values, torch.tensor([[-0.5, -0.9, -0.7], [-1.0, 0.0, 0.0]]))


def test_a_text_is_scored_with_its_prompt_and_paid_at_its_last_token() -> None:
    reward = TextReward(lambda text, asked: len(text) + 10.0 * (asked.kind == "boundary"))
    found = reward(rollouts([FORGET, RETAIN]))
    assert found.values.tolist() == [3.0, 10.0] and not found.level
    assert found.dense(torch.tensor([[1, 1, 1], [1, 0, 0]])).tolist() == [[0, 0, 3], [10, 0, 0]]


@pytest.mark.parametrize(
    ("values", "level", "wanted"),
    [
        (torch.tensor([1.0, 1.0]), False, [-2.0, 1.0]),  # both for the response
        (torch.full((2, 3), 1.0), True, [[-2.0, -2.0, -2.0], [1.0, 1.0, 1.0]]),  # a level at every token
        (torch.full((2, 3), 1.0), False, [[0.0, 0.0, -2.0], [1.0, 1.0, 1.0]]),  # else once, at the last
    ],
)
def test_retain_prompts_have_a_reward_of_their_own(values: Tensor, level: bool, wanted: Any) -> None:
    noted = {"x": (torch.tensor(1.0), torch.tensor(2.0))}
    mixed = MixedReward(lambda _: Rewarded(values, level, noted, torch.zeros(2)), TextReward(lambda *_: -2.0))
    found = mixed(rollouts([RETAIN, FORGET]))
    assert found.values.tolist() == wanted
    assert found.level == level and found.logged == noted and found.nobody is not None


def test_kl_and_guards_are_added_to_any_reward() -> None:
    cfg = config(
        reward={"kl": 0.5, "length_penalty": 2.0, "empty_penalty": 3.0, "repetition_penalty": 1.0}
    ).reward
    batch = rollouts([FORGET, RETAIN])
    kl = torch.tensor([[0.2, 0.4, 0.0], [1.0, 0.0, 0.0]])
    found = shaped(Rewarded(torch.tensor([1.0, 0.0])), batch, cfg, kl, torch.zeros(2, 3))
    # 1 at the last token, −.5·KL; the second is empty (−3), does not end (−2), and repeats nothing
    torch.testing.assert_close(found, torch.tensor([[-0.1, -0.2, 1.0], [-0.5 - 3 - 2, 0.0, 0.0]]))
    fluent = config(reward={"fluency": 2.0, "fluency_clip": 4.0}).reward
    found = shaped(Rewarded(torch.zeros(2)), batch, fluent, 0 * kl, torch.full((2, 3), -math.log(8)))
    assert found[0].tolist() == pytest.approx([-2 * math.log(8) / 4] * 3)  # eight words alike


def test_what_is_noted_for_each_kind_of_prompt() -> None:
    batch = rollouts([FORGET, RETAIN])
    found = by_kind(Rewarded(torch.tensor([0.25, -4.0])), batch)
    assert {k: (float(v), float(w)) for k, (v, w) in found.items()} == {
        "reward_forget": (0.25, 1.0), "reward_retain": (-4.0, 1.0),
    }  # fmt: skip
    # dense: the mean of three tokens, and of one; padding is not among them
    found = by_kind(Rewarded(torch.tensor([[1.0, 2.0, 6.0], [4.0, 9.0, 9.0]])), batch)
    assert {k: (float(v), float(w)) for k, (v, w) in found.items()} == {
        "reward_forget": (3.0, 3.0), "reward_retain": (4.0, 1.0),
    }  # fmt: skip
    assert float(by_kind(Rewarded(torch.ones(2)), rollouts([FORGET, FORGET]))["reward_retain"][1]) == 0
