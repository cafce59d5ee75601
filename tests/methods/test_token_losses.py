"""Losses on single tokens (WGA, SatImp, CE-U, UNDIAL): values and gradients by hand, and traps for them."""

from __future__ import annotations

import math

import pytest
import torch
from loss_fixture import LN2, gradient, row
from torch import Tensor

from dareu.methods.ceu import ceu
from dareu.methods.gradient_ascent import gradient_ascent
from dareu.methods.satimp import satimp
from dareu.methods.undial import undial
from dareu.methods.wga import wga

LN3 = math.log(3)
MASK = torch.tensor([[1, 1, 0]])


# --- weighted gradient ascent -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beta", "value", "slopes"),
    [
        # tokens of probability 1/2 and 1/4, the third is none: (½·(−ln 2) + ¼·(−2 ln 2))/2; slopes are weights/2
        (1.0, -0.5 * LN2, [0.25, 0.125, 0]),
        # weights ¼ and 1/16: (−¼ − ⅛)/2
        (2.0, -0.1875 * LN2, [0.125, 0.03125, 0]),
        (0.0, -1.5 * LN2, [0.5, 0.5, 0]),  # gradient ascent
    ],
)
def test_wga(beta: float, value: float, slopes: list[float]) -> None:
    logps = row(-LN2, -2 * LN2, -5.0)
    loss = wga(logps, MASK, beta)
    assert loss.item() == pytest.approx(value)
    assert gradient(loss, logps) == pytest.approx(slopes)


def test_satimp() -> None:
    # β1 = 2, β2 = 1: weights ¼·½ = 1/8 and 1/16·¾ = 3/64, so −(8 + 6)/64/2 · ln 2; slopes are weights/2
    logps = row(-LN2, -2 * LN2, -5.0)
    loss = satimp(logps, MASK, beta1=2.0, beta2=1.0)
    assert loss.item() == pytest.approx(-7 / 64 * LN2)
    assert gradient(loss, logps) == pytest.approx([1 / 16, 3 / 128, 0])


def test_satimp_ends_in_wga_and_gradient_ascent() -> None:
    logps = row(-LN2, -2 * LN2, -5.0)
    torch.testing.assert_close(satimp(logps, MASK, 2.0, 0.0), wga(logps, MASK, 2.0))
    torch.testing.assert_close(satimp(logps, MASK, 0.0, 0.0), gradient_ascent(logps, MASK))
    # β1 = 0, β2 = 1: weights ½ and ¾ alone, (−½ − 3/2)/2
    assert satimp(logps, MASK, 0.0, 1.0).item() == pytest.approx(-LN2)


@pytest.mark.parametrize("loss", [wga, satimp])
def test_a_token_that_is_certain_or_gone_gives_no_nan(loss: object) -> None:
    # float32: p = 1 exactly, and p = e^−200 that is 0
    logps = row(0.0, -200.0)
    value = loss(logps, torch.ones(1, 2))  # type: ignore[operator]
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert all(math.isfinite(slope) for slope in gradient(value, logps))


# --- CE-U ---------------------------------------------------------------------------------------------------------


def probabilities(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor([rows]).log().requires_grad_()


@pytest.mark.parametrize(
    ("ignore_first", "value", "slopes"),
    [
        # (½, ¼, ¼) without token 0 is (0, ½, ½): −ln ¼ = 2 ln 2, slope p − target = (½, −¼, −¼).
        # (⅛, ⅜, ½) without token 2 is (¼, ¾, 0): ¼ ln 8 + ¾ ln 8/3 = 3 ln 2 − ¾ ln 3, slope (−⅛, −⅜, ½).
        (0, (5 * LN2 - 0.75 * LN3) / 2, [0.25, -0.125, -0.125, -1 / 16, -3 / 16, 0.25, 0, 0, 0]),
        (1, 3 * LN2 - 0.75 * LN3, [0, 0, 0, -1 / 8, -3 / 8, 0.5, 0, 0, 0]),
        (2, 0.0, [0] * 9),
    ],
)
def test_ceu(ignore_first: int, value: float, slopes: list[float]) -> None:
    logits = probabilities((0.5, 0.25, 0.25), (0.125, 0.375, 0.5), (0.6, 0.3, 0.1))
    loss = ceu(logits, torch.tensor([[0, 2, 0]]), MASK, ignore_first)
    assert loss.item() == pytest.approx(value)
    assert gradient(loss, logits) == pytest.approx(slopes, abs=1e-6)


def test_ceu_counts_answer_tokens_from_their_first() -> None:
    """Prompt and pads on the left are not what `ignore_first` means."""
    logits = probabilities((0.1, 0.1, 0.8), (0.5, 0.25, 0.25), (0.125, 0.375, 0.5))
    loss = ceu(logits, torch.tensor([[0, 0, 2]]), torch.tensor([[False, True, True]]), ignore_first=1)
    assert loss.item() == pytest.approx(3 * LN2 - 0.75 * LN3)


def test_ceu_rests_where_the_true_token_is_gone() -> None:
    logits = torch.tensor([[[-60.0, 0.0, LN3]]], requires_grad=True)
    loss = ceu(logits, torch.tensor([[0]]), torch.ones(1, 1), ignore_first=0)
    assert loss.item() == pytest.approx(0.25 * 2 * LN2 + 0.75 * (2 * LN2 - LN3))  # entropy of (¼, ¾)
    assert gradient(loss, logits) == pytest.approx([0, 0, 0], abs=1e-6)


# --- UNDIAL -------------------------------------------------------------------------------------------------------


def test_undial() -> None:
    # β = ln 3. Reference logits (ln 3, 0) with token 0 lowered are (0, 0): target (½, ½). The policy has (¾, ¼):
    # −½ ln ¾ − ½ ln ¼ = ½ ln 16/3, slope (¼, −¼). Then (0, ln 9) with token 1 lowered is (0, ln 3): target (¼, ¾), the
    # policy has (½, ½): ln 2, slope (¼, −¼). Means over two tokens.
    logits = probabilities((0.75, 0.25), (0.5, 0.5), (0.9, 0.1))
    reference = torch.tensor([[[LN3, 0.0], [0.0, 2 * LN3], [5.0, 0.0]]])
    loss = undial(logits, torch.tensor([[0, 1, 0]]), MASK, reference, beta=LN3)
    assert loss.item() == pytest.approx((0.5 * math.log(16 / 3) + LN2) / 2)
    assert gradient(loss, logits) == pytest.approx([0.125, -0.125, 0.125, -0.125, 0, 0])


def test_undial_without_strength_is_distillation() -> None:
    # β = 0 at the reference: the entropy of (¾, ¼), and nothing to learn
    logits = probabilities((0.75, 0.25))
    loss = undial(logits, torch.tensor([[0]]), torch.ones(1, 1), logits.detach(), beta=0.0)
    assert loss.item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * 2 * LN2)
    assert gradient(loss, logits) == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize("poison", [1e4, -math.inf, math.nan])
def test_positions_that_do_not_count_are_never_read(poison: float) -> None:
    """In prompt and padding, one-hots of labels and divergences are the traps: poison there must not show."""
    clean, mask = (
        torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0)),
        torch.tensor([[0, 1, 1, 0]]),
    )
    dirty = clean.clone()
    dirty[0, 0], dirty[0, 3] = poison, poison
    labels = torch.tensor([[0, 3, 1, 0]])
    for loss in (
        lambda logits: ceu(logits, labels, mask, ignore_first=0),
        lambda logits: undial(logits, labels, mask, dirty),
        lambda logits: undial(clean, labels, mask, logits),
    ):
        assert loss(dirty).item() == pytest.approx(loss(clean).item()) and math.isfinite(loss(dirty))
    leaf = dirty.clone().requires_grad_()
    undial(leaf, labels, mask, clean).backward()
    assert leaf.grad is not None and leaf.grad[0, 1:3].abs().sum() > 0.1 and not leaf.grad[0, [0, 3]].any()
