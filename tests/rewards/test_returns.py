"""Returns, generalised advantage estimation, shaping and explained variance, against hand computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dareu.rewards.returns import (
    discounted_returns,
    explained_variance,
    gae,
    group_advantages,
    masked_moments,
    rloo_advantages,
    shape_advantages,
)

REWARDS = torch.tensor([[1.0, 2.0, 4.0]])
VALUES = torch.tensor([[0.5, 1.0, 2.0]])
ONES = torch.ones(1, 3, dtype=torch.long)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Random rewards and values, also outside the mask; responses of 0, 1, 3 and 6 tokens."""
    rewards, values = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(5))
    return rewards, values, (torch.arange(6) < torch.tensor([[0], [1], [3], [6]])).long()


# --- returns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gamma", "wanted"),
    [
        (0.5, [3.0, 4.0, 4.0]),  # 4;  2 + 4/2;  1 + 4/2
        (0.0, [1.0, 2.0, 4.0]),
        (1.0, [7.0, 6.0, 4.0]),
    ],
)
def test_discounted_returns(gamma: float, wanted: list[float]) -> None:
    torch.testing.assert_close(discounted_returns(REWARDS, ONES, gamma), torch.tensor([wanted]))


def test_returns_stop_at_the_last_token() -> None:
    # the third token is padding: 2;  1 + 2/2. An empty row has no returns.
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    returns = discounted_returns(REWARDS.repeat(2, 1), mask, 0.5)
    torch.testing.assert_close(returns, torch.tensor([[2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))


# --- advantages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lam", "advantages"),
    [
        # γ = 1/2: δ = 1 + 1/2 − 1/2, 2 + 2/2 − 1, 4 − 2 = 1, 2, 2
        (0.0, [1.0, 2.0, 2.0]),  # A = δ
        (0.5, [1.625, 2.5, 2.0]),  # 2;  2 + 2/4;  1 + 2.5/4
        (1.0, [2.5, 3.0, 2.0]),  # A = R − V = 3 − .5, 4 − 1, 4 − 2
    ],
)
def test_gae_of_three_tokens(lam: float, advantages: list[float]) -> None:
    found, targets = gae(REWARDS, VALUES, ONES, gamma=0.5, lam=lam)
    wanted = torch.tensor([advantages])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(targets, wanted + VALUES)


def test_gae_at_the_ends_of_gamma() -> None:
    found, targets = gae(REWARDS, VALUES, ONES, gamma=0.0, lam=0.7)  # A = r − V
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.0, 2.0]]))
    torch.testing.assert_close(targets, REWARDS)
    found, targets = gae(REWARDS, VALUES, ONES, gamma=1.0, lam=1.0)  # R = 7, 6, 4
    torch.testing.assert_close(found, torch.tensor([[6.5, 5.0, 2.0]]))
    torch.testing.assert_close(targets, torch.tensor([[7.0, 6.0, 4.0]]))


def test_gae_of_one_token_and_of_none() -> None:
    # one token: r − V whatever γ and λ are; the value and the reward of the padding after it are not read
    rewards, values = torch.tensor([[3.0, 100.0]] * 2), torch.tensor([[1.0, 50.0]] * 2)
    found, targets = gae(rewards, values, torch.tensor([[1, 0], [0, 0]]), gamma=0.9, lam=0.8)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(targets, torch.tensor([[3.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_lambda_one_is_return_minus_value(gamma: float) -> None:
    rewards, values, mask = batch()
    found, targets = gae(rewards, values, mask, gamma, lam=1.0)
    returns = discounted_returns(rewards, mask, gamma)
    torch.testing.assert_close(found, (returns - values) * mask)
    torch.testing.assert_close(targets, returns)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_gae_does_not_depend_on_padding_batch_or_order(lam: float) -> None:
    rewards, values, mask = batch()
    whole = gae(rewards, values, mask, 0.9, lam)
    wide = [torch.cat([x, torch.full((4, 3), 7.0)], 1) for x in (rewards, values)]
    wider = gae(*wide, torch.cat([mask, torch.zeros(4, 3, dtype=torch.long)], 1), 0.9, lam)
    alone = [gae(rewards[i : i + 1], values[i : i + 1], mask[i : i + 1], 0.9, lam) for i in range(4)]
    order = torch.tensor([2, 0, 3, 1])
    moved = gae(rewards[order], values[order], mask[order], 0.9, lam)
    for k in range(2):  # advantages, value targets
        torch.testing.assert_close(wider[k][:, :6], whole[k])
        assert not wider[k][:, 6:].any()
        torch.testing.assert_close(torch.cat([pair[k] for pair in alone]), whole[k])
        torch.testing.assert_close(moved[k], whole[k][order])


# --- groups: no critic ------------------------------------------------------------------------------------------------


def _sequence(rewards: list[float], lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Rewards at the last tokens of responses, as undiscounted returns, and their mask."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.tensor(rewards)[:, None] * mask, mask


def test_leave_one_out_of_sequence_rewards() -> None:
    # Two prompts of three rollouts. 3 − (0 + 6)/2 = 0, 0 − 4.5, 6 − 1.5; and 1 − 1 = 0 three times.
    returns, mask = _sequence([3.0, 0.0, 6.0, 1.0, 1.0, 1.0], [2, 1, 3, 1, 2, 2])
    found = rloo_advantages(returns, mask, 3)
    wanted = torch.tensor([[0.0], [-4.5], [4.5], [0.0], [0.0], [0.0]]) * mask
    torch.testing.assert_close(found, wanted)


def test_group_mean_and_sd_of_sequence_rewards() -> None:
    # 3, 0, 6: mean 3, sd with n − 1 is √((0 + 9 + 9)/2) = 3. The second group does not differ: 0, not 0/ε.
    returns, mask = _sequence([3.0, 0.0, 6.0, 0.1, 0.1, 0.1], [2, 1, 3, 1, 2, 2])
    found = group_advantages(returns, mask, 3, epsilon=0.0)
    torch.testing.assert_close(found, torch.tensor([[0.0], [-1.0], [1.0], [0.0], [0.0], [0.0]]) * mask)
    found = group_advantages(returns, mask, 3, epsilon=3.0)  # 3 / (3 + 3)
    torch.testing.assert_close(found[1:3, 0], torch.tensor([-0.5, 0.5]))


def test_groups_of_dense_returns_are_compared_token_by_token() -> None:
    # Returns of two rollouts, the second a token shorter: behind its end its last return, 4, stands on.
    returns, mask = torch.tensor([[5.0, 3.0, 2.0], [7.0, 4.0, 99.0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    # 5 − 7, 3 − 4, 2 − 4; the other way round 2 and 1, and nothing where it has ended
    wanted = torch.tensor([[-2.0, -1.0, -2.0], [2.0, 1.0, 0.0]])
    torch.testing.assert_close(rloo_advantages(returns, mask, 2), wanted)
    # mean 6, 3.5, 3; sd √2, √½, √2: −1/√2, −½/√½, −1/√2
    half = 0.5**0.5
    wanted = torch.tensor([[-half, -half, -half], [half, half, 0.0]])
    torch.testing.assert_close(group_advantages(returns, mask, 2, epsilon=0.0), wanted)


def test_rounding_in_a_group_is_not_blown_up() -> None:
    returns, mask = _sequence([0.1, 0.1 + 1e-8, 0.1], [2, 2, 2])
    assert not group_advantages(returns, mask, 3).any()
    returns, mask = _sequence([0.1, 0.1 + 1e-4, 0.1], [2, 2, 2])
    assert group_advantages(returns, mask, 3).abs().max() > 0.1


@pytest.mark.parametrize("estimate", [rloo_advantages, group_advantages])
def test_groups_sum_to_zero_and_know_no_padding_order_or_other_group(estimate: Any) -> None:
    rewards, _, mask = batch()
    mask[0, 0] = 1
    returns = discounted_returns(rewards, mask, 0.9)
    whole = estimate(returns, mask, 2)
    wide = torch.cat([returns, torch.full((4, 3), 7.0)], 1)
    wider = estimate(wide, torch.cat([mask, torch.zeros(4, 3, dtype=torch.long)], 1), 2)
    torch.testing.assert_close(wider[:, :6], whole)
    assert not wider[:, 6:].any()
    torch.testing.assert_close(estimate(returns[2:], mask[2:], 2), whole[2:])
    order = torch.tensor([3, 2, 1, 0])
    torch.testing.assert_close(estimate(returns[order], mask[order], 2), whole[order])
    full = estimate(returns, torch.ones_like(mask), 4)
    torch.testing.assert_close(full.sum(0), torch.zeros(6), atol=1e-5, rtol=0)
    assert full.abs().max() > 0.1


def test_a_response_without_tokens_counts_as_nothing() -> None:
    returns, mask = torch.tensor([[4.0], [9.0]]), torch.tensor([[1], [0]])
    torch.testing.assert_close(rloo_advantages(returns, mask, 2), torch.tensor([[4.0], [0.0]]))


@pytest.mark.parametrize("estimate", [rloo_advantages, group_advantages])
def test_a_group_of_one_or_half_a_group_is_an_error(estimate: Any) -> None:
    for group in (1, 3):
        with pytest.raises(ValueError, match=f"groups of {group}"):
            estimate(torch.ones(4, 2), torch.ones(4, 2), group)


# --- shaping ------------------------------------------------------------------------------------------------------


def test_scaled_advantages_keep_their_mean() -> None:
    advantages, mask = torch.tensor([[2.0, -1.0, 9.0]]), torch.tensor([[1, 1, 0]])
    # (1 − .95)·4 = .2; with γ = 1 the factor (1 − γ) is left out
    shaped = shape_advantages(advantages, mask, "scaled", gamma=0.95, scale=4.0)
    torch.testing.assert_close(shaped, torch.tensor([[0.4, -0.2, 0.0]]))
    shaped = shape_advantages(advantages, mask, "scaled", gamma=1.0, scale=4.0)
    torch.testing.assert_close(shaped, torch.tensor([[8.0, -4.0, 0.0]]))
    # the same advantage everywhere stays: nothing is centred away
    same = shape_advantages(torch.full((2, 2), -3.0), torch.ones(2, 2), "scaled", gamma=0.5, scale=2.0)
    torch.testing.assert_close(same, torch.full((2, 2), -3.0))


def test_raw_advantages_are_only_masked() -> None:
    shaped = shape_advantages(torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 0]]), "raw", 0.95, 4.0)
    assert shaped.tolist() == [[2.0, 0.0]]


def test_whitened_advantages() -> None:
    # 1 and 3 have mean 2 and (population) variance 1; the masked 9 is not among them
    advantages, mask = torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]])
    shaped = shape_advantages(advantages, mask, "whitened", gamma=0.95, scale=4.0)
    torch.testing.assert_close(shaped, torch.tensor([[-1.0, 1.0, 0.0]]))
    # moments given: (1 − 0)/2, (3 − 0)/2
    moments = (torch.tensor(0.0), torch.tensor(4.0))
    shaped = shape_advantages(advantages, mask, "whitened", 0.95, 4.0, moments)
    torch.testing.assert_close(shaped, torch.tensor([[0.5, 1.5, 0.0]]))


def test_whitening_of_equal_advantages_leaves_nothing() -> None:
    shaped = shape_advantages(torch.full((2, 3), -4.0), torch.ones(2, 3), "whitened", 0.95, 4.0)
    assert shaped.tolist() == [[0.0] * 3] * 2


def test_parts_whitened_with_common_moments_are_the_whole() -> None:
    advantages, _, mask = batch()
    whole = shape_advantages(advantages, mask, "whitened", 0.9, 1.0)
    mean, variance = masked_moments(whole, mask)
    assert abs(float(mean)) < 1e-6 and float(variance) == pytest.approx(1.0, abs=1e-5)
    moments = masked_moments(advantages, mask)
    parts = [
        shape_advantages(a, m, "whitened", 0.9, 1.0, moments)
        for a, m in zip(advantages.split(2), mask.split(2), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_masked_moments() -> None:
    # 1, 2, 6: mean 3, variance (4 + 1 + 9)/3
    mean, variance = masked_moments(torch.tensor([[1.0, 2.0], [6.0, 50.0]]), torch.tensor([[1, 1], [1, 0]]))
    assert float(mean) == pytest.approx(3.0) and float(variance) == pytest.approx(14 / 3)
    mean, variance = masked_moments(torch.tensor([[5.0]]), torch.tensor([[0]]))
    assert float(mean) == 0.0 and float(variance) == 0.0


# --- explained variance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1.0, 2.0, 3.0], 1.0),
        ([4.0, 5.0, 6.0], 1.0),  # an offset is not variance
        ([2.0, 2.0, 2.0], 0.0),
        ([1.5, 2.0, 2.5], 0.75),  # R − V has half the spread: 1 − 1/4
        ([3.0, 2.0, 1.0], -3.0),  # R − V = −2, 0, 2: variance 8/3 against 2/3
    ],
)
def test_explained_variance(values: list[float], wanted: float) -> None:
    # a fourth token, outside the mask, would change every one of these
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 50.0]]), torch.tensor([[1, 1, 1, 0]])
    found = explained_variance(torch.tensor([[*values, -9.0]]), returns, mask)
    assert float(found) == pytest.approx(wanted, abs=1e-5)


def test_explained_variance_where_nothing_varies_is_zero() -> None:
    mask = torch.ones(1, 3)
    assert float(explained_variance(torch.tensor([[1.0, 2.0, 3.0]]), torch.full((1, 3), 2.0), mask)) == 0.0
    assert float(explained_variance(VALUES, REWARDS, 0 * mask)) == 0.0
