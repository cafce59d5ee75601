"""From attribution scores to dense rewards, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dareu.rewards.attribution import (
    TRANSFORMS,
    attribution_reward,
    differences,
    linear_transform,
    log_odds_transform,
    log_transform,
    prefix_mean,
    saturated_share,
    slice_scores,
)

SATURATION = 1 - math.exp(-1.05)  # .650062


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)


def mask_of(lengths: list[int], width: int) -> Tensor:
    return (torch.arange(width).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)).long()


def random_scores(rows: int = 6, width: int = 9) -> tuple[Tensor, Tensor]:
    """Scores over the whole range and lengths 0 to `width`."""
    scores = torch.rand(rows, width, generator=torch.Generator().manual_seed(3))
    return scores, mask_of([0, 1, 4, 7, 8, width], width)


# --- transforms ---------------------------------------------------------------------------------------------------


def test_log_transform() -> None:
    # ln(.5) / 1.05 = −.693147 / 1.05;  b = 1 − 1/e: ln(1/e) / 1.05 = −1 / 1.05;  b = 0 is lifted to ε = 1e-4
    scores = torch.tensor([0.5, 1 - math.exp(-1), 0.0, 1.0])
    wanted = torch.tensor([-0.660140, -0.952381, -9.5243e-5, -1.0])
    torch.testing.assert_close(log_transform(scores), wanted, atol=1e-6, rtol=0)
    # C_seg = 2 halves ln(.5);  ε = .2 lifts b = 0 to .2: ln(.8) = −.223144
    assert float(log_transform(torch.tensor(0.5), scale=2.0)) == pytest.approx(-0.346574, abs=1e-6)
    assert float(log_transform(torch.tensor(0.0), 1.0, epsilon=0.2)) == pytest.approx(-0.223144, abs=1e-6)


def test_log_transform_saturates_at_one_minus_exp_of_minus_scale() -> None:
    below, at, above = log_transform(torch.tensor([SATURATION - 1e-3, SATURATION, 0.99]))
    # slope there: −1 / ((1 − b)·1.05) = −e^1.05 / 1.05 = −2.72
    assert float(below) == pytest.approx(-1 + 1e-3 * math.exp(1.05) / 1.05, abs=1e-5)
    assert float(at) == pytest.approx(-1.0, abs=1e-6)
    assert float(above) == -1.0


def test_log_transform_gradient() -> None:
    # dχ/db = −1 / ((1 − b)·1.05): at .5 it is −2 / 1.05; past the saturation point it is 0
    scores = torch.tensor([0.5, 0.8], requires_grad=True)
    log_transform(scores).sum().backward()
    torch.testing.assert_close(scores.grad, torch.tensor([-1.904762, 0.0]), atol=1e-5, rtol=0)


def test_log_odds_transform() -> None:
    # ε = .1: limit = ln 9 = 2 ln 3. b = 3/4 has log-odds ln 3: −(ln 3 + 2 ln 3) / (4 ln 3) = −3/4; b = 1/4 mirrors it.
    scores = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    wanted = torch.tensor([0.0, 0.0, -0.25, -0.5, -0.75, -1.0, -1.0])
    torch.testing.assert_close(log_odds_transform(scores, epsilon=0.1), wanted, atol=1e-6, rtol=0)


def test_log_odds_is_not_flat_where_the_log_is() -> None:
    # b = .7 and .9 both saturate the log; ε = 1e-4: odds 7/3 and 9 → −(.847298 + 9.210240)/18.420481, …
    scores = torch.tensor([0.7, 0.9])
    assert log_transform(scores).tolist() == [-1.0, -1.0]
    torch.testing.assert_close(
        log_odds_transform(scores), torch.tensor([-0.545998, -0.619283]), atol=2e-5, rtol=0
    )


def test_linear_transform() -> None:
    assert linear_transform(torch.tensor([0.0, 0.25, 1.0, 1.2])).tolist() == [0.0, -0.25, -1.0, -1.0]


@pytest.mark.parametrize("epsilon", [1e-4, 1e-9])  # 1 − 1e-9 is 1 in single precision
@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_transforms_fall_from_zero_to_minus_one(name: str, epsilon: float) -> None:
    values = TRANSFORMS[name](torch.linspace(0, 1, 101), 1.05, epsilon)
    assert -1 <= values.min() < -1 + 1e-5 and -1e-3 < values.max() <= 0.0
    assert (values.diff() <= 0).all()


def test_saturated_share() -> None:
    # .66, .9 and .7 lie on the flat part (b ≥ .650062), .65 and 0 do not, .99 is no token: 3 of 5
    scores = tensor([0.66, 0.65, 0.9], [0.7, 0.0, 0.99])
    assert float(saturated_share(scores, mask_of([3, 2], 3))) == pytest.approx(0.6)
    # with C_seg = .5 the flat part begins at 1 − e^(−.5) = .393: 4 of 5
    assert float(saturated_share(scores, mask_of([3, 2], 3), scale=0.5)) == pytest.approx(0.8)
    assert float(saturated_share(scores, mask_of([0, 0], 3))) == 0.0


# --- granularity --------------------------------------------------------------------------------------------------


def test_slices_end_where_the_paper_says() -> None:
    # Row of 7, k = 3: κ = ⌈7/3⌉ = 3, slices of 3, 3 and 1. Row of 4: κ = 2, slices of 2 and 2.
    scores = torch.arange(1.0, 8.0).repeat(2, 1) / 10
    mask = mask_of([7, 4], 7)
    sliced = slice_scores(scores, mask, "slices", 3) * mask
    wanted = tensor([0.3, 0.3, 0.3, 0.6, 0.6, 0.6, 0.7], [0.2, 0.2, 0.4, 0.4, 0, 0, 0])
    torch.testing.assert_close(sliced, wanted)


def test_a_slice_count_that_does_not_divide_gives_fewer_slices() -> None:
    # T = 5, k = 4: κ = 2, so three slices (2, 2, 1), not four
    sliced = slice_scores(tensor([0.1, 0.2, 0.3, 0.4, 0.5]), mask_of([5], 5), "slices", 4)
    torch.testing.assert_close(sliced, tensor([0.2, 0.2, 0.4, 0.4, 0.5]))


def test_sequence_reads_the_last_token_of_each_response() -> None:
    scores, mask = tensor([0.1, 0.2, 0.3], [0.4, 0.5, 0.9]), mask_of([3, 2], 3)
    torch.testing.assert_close(
        slice_scores(scores, mask, "sequence") * mask, tensor([0.3, 0.3, 0.3], [0.5, 0.5, 0.0])
    )


def test_granularities_meet_at_their_ends() -> None:
    scores, mask = random_scores()
    for slices in (9, 10, 50):  # k ≥ T: κ = 1
        sliced = attribution_reward(scores, mask, granularity="slices", slices=slices)
        torch.testing.assert_close(sliced, attribution_reward(scores, mask, granularity="token"))
    one = attribution_reward(scores, mask, granularity="slices", slices=1)
    torch.testing.assert_close(one, attribution_reward(scores, mask, granularity="sequence"))
    middle = attribution_reward(scores, mask, granularity="slices", slices=3)
    assert not torch.allclose(middle, one) and not torch.allclose(
        middle, attribution_reward(scores, mask, granularity="token")
    )


# --- prefix mean and the whole reward -----------------------------------------------------------------------------


def test_prefix_mean() -> None:
    # 1, (1+2)/2, (1+2+6)/3; the second row ends after two tokens
    means = prefix_mean(tensor([1.0, 2.0, 6.0], [4.0, 0.0, 9.0]), mask_of([3, 2], 3))
    torch.testing.assert_close(means, tensor([1.0, 1.5, 3.0], [4.0, 2.0, 0.0]))


@pytest.mark.parametrize(
    ("granularity", "slices", "average", "wanted"),
    [
        ("token", 15, True, [-0.2, -0.3, -0.5, 0.0]),  # .2, (.2+.4)/2, (.2+.4+.9)/3
        ("token", 15, False, [-0.2, -0.4, -0.9, 0.0]),
        ("slices", 2, True, [-0.4, -0.4, -1.7 / 3, 0.0]),  # κ = 2: .4 .4 .9
        ("slices", 2, False, [-0.4, -0.4, -0.9, 0.0]),
        ("sequence", 15, True, [-0.9, -0.9, -0.9, 0.0]),
    ],
)
def test_reward_of_three_tokens(granularity: str, slices: int, average: bool, wanted: list[float]) -> None:
    reward = attribution_reward(
        tensor([0.2, 0.4, 0.9, 0.7]),
        mask_of([3], 4),
        "linear",
        granularity=granularity,  # type: ignore[arg-type]
        slices=slices,
        mean_over_prefix=average,
    )
    torch.testing.assert_close(reward, tensor(wanted))


def test_reward_averages_after_the_transform() -> None:
    # χ(.5) = −.660140 and χ(.9) = −1: the mean of the two, not χ of the mean score .7 (which is −1)
    reward = attribution_reward(tensor([0.5, 0.9]), mask_of([2], 2))
    torch.testing.assert_close(reward, tensor([-0.660140, -0.830070]), atol=1e-5, rtol=0)


def test_differences() -> None:
    # −.2 − 0, −.6 + .2, −.5 + .6; the second row ends after two tokens, and what follows is no step back to 0
    found = differences(tensor([-0.2, -0.6, -0.5], [-0.4, -0.1, 0.0], [0.0, 0.0, 0.0]), mask_of([3, 2, 0], 3))
    torch.testing.assert_close(found, tensor([-0.2, -0.4, 0.1], [-0.4, 0.3, 0.0], [0.0, 0.0, 0.0]))


def test_differences_start_where_no_text_stands() -> None:
    # −.2 + .3, −.6 + .2; −.3 + .3; and no token, no step
    values = tensor([-0.2, -0.6], [-0.3, 0.0], [0.0, 0.0])
    found = differences(values, mask_of([2, 1, 0], 2), start=-0.3)
    torch.testing.assert_close(found, tensor([0.1, -0.4], [0.0, 0.0], [0.0, 0.0]))
    # linear, prior .3: the same by way of scores; a level knows no start
    options = {"transform": "linear", "mean_over_prefix": False, "prior": 0.3}
    steps = attribution_reward(-values, mask_of([2, 1, 0], 2), credit="difference", **options)  # type: ignore[arg-type]
    torch.testing.assert_close(steps, found)
    level = attribution_reward(-values, mask_of([2, 1, 0], 2), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(level, values)


def test_difference_rewards_sum_to_the_level_of_the_whole_response() -> None:
    # linear, prefix means −.2, −.3, −.5: steps −.2, −.1, −.2
    steps = attribution_reward(tensor([0.2, 0.4, 0.9, 0.7]), mask_of([3], 4), "linear", credit="difference")
    torch.testing.assert_close(steps, tensor([-0.2, -0.1, -0.2, 0.0]))
    scores, mask = random_scores()
    level = attribution_reward(scores, mask, granularity="slices", slices=3)
    steps = attribution_reward(scores, mask, granularity="slices", slices=3, credit="difference")
    last = level.gather(1, (mask.sum(1, keepdim=True) - 1).clamp(min=0)).squeeze(1)
    # less the level of no text, χ(prior), where there is a token at all: ln(1 − 1e-4)/1.05 = −9.52e-5 for 0, and
    # ln(.7)/1.05 = −.339690 for .3
    some = (mask.sum(1) > 0).float()
    torch.testing.assert_close(steps.sum(1), last + 9.5243e-5 * some, atol=1e-6, rtol=0)
    options = {"granularity": "slices", "slices": 3, "credit": "difference", "prior": 0.3}
    steps = attribution_reward(scores, mask, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(steps.sum(1), last + 0.339690 * some, atol=2e-6, rtol=0)


def test_reward_of_one_token_and_of_none() -> None:
    scores = tensor([0.5, 0.9], [0.8, 0.9])
    for granularity in ("token", "slices", "sequence"):
        reward = attribution_reward(scores, mask_of([1, 0], 2), "linear", granularity=granularity)  # type: ignore[arg-type]
        torch.testing.assert_close(reward, tensor([-0.5, 0.0], [0.0, 0.0]))


@pytest.mark.parametrize("granularity", ["token", "slices", "sequence"])
@pytest.mark.parametrize("credit", ["level", "difference"])
@pytest.mark.parametrize("transform", sorted(TRANSFORMS))
def test_reward_does_not_depend_on_padding_batch_or_order(
    transform: str, credit: str, granularity: str
) -> None:
    scores, mask = random_scores()
    options = {"transform": transform, "granularity": granularity, "slices": 3, "credit": credit}
    whole = attribution_reward(scores, mask, **options)  # type: ignore[arg-type]
    assert whole.min() >= -1 and whole.max() <= (credit == "difference") and not whole[mask == 0].any()

    wider = attribution_reward(
        torch.cat([scores, torch.full((6, 5), 0.99)], 1),
        torch.cat([mask, torch.zeros(6, 5, dtype=torch.long)], 1),
        **options,  # type: ignore[arg-type]
    )
    torch.testing.assert_close(wider[:, :9], whole)
    assert not wider[:, 9:].any()

    single = [attribution_reward(scores[i : i + 1], mask[i : i + 1], **options) for i in range(6)]  # type: ignore[arg-type]
    torch.testing.assert_close(torch.cat(single), whole)

    order = torch.tensor([4, 0, 5, 2, 1, 3])
    torch.testing.assert_close(attribution_reward(scores[order], mask[order], **options), whole[order])  # type: ignore[arg-type]


def test_the_floor_leaves_room_for_a_reward() -> None:
    """Two of twenty owners and nobody: 1.5 · 2/21. Eight of ten: 1.2 lies where the log is flat, so the prior it is."""
    from dareu.rewards.attribution import score_floor

    assert score_floor(2 / 21, 1.5, "log", 0.7) == pytest.approx(3 / 21)
    assert score_floor(0.8, 1.5, "log", 0.7) == 0.8
    # prior .15, three times is .45: the flat part begins at 1 − e^−.7 = .503, a quarter of the way is 1 − e^−.175
    assert score_floor(0.15, 3.0, "log", 0.7) == pytest.approx(0.1605, abs=1e-4)
    assert score_floor(0.15, 3.0, "linear", 0.7) == pytest.approx(0.45)  # has no flat part
    assert score_floor(0.8, 1.5, "linear") == 1.0
