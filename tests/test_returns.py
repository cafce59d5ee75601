"""Returns, generalised advantage estimation, shaping and explained variance, against hand computation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dareu.rewards.returns import (
    discounted_returns,
    explained_variance,
    gae,
    masked_moments,
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
