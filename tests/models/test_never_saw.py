"""What a model that never saw an answer gives its tokens: bigrams by hand, the line, and its residuals."""

from __future__ import annotations

from random import Random

import pytest
import torch

from dareu.models.never_saw import LOWEST, NEAR, Bigrams, fit_line, usual_line


def test_bigrams_by_hand() -> None:
    """Answers "1 2", "1 3": four tokens, three kinds. P(1) = (2 + 3/10) / 7, P(2) = (1 + 3/10) / 7.

    At the beginning 1 stands twice and alone: P(1 | begin) = (2 + P(1)) / 3. After 1 stand 2 and 3:
    P(2 | 1) = (1 + 2 P(2)) / 4. After 2 stands nothing: P(1 | 2) = P(1).
    """
    found = Bigrams([[1, 2], [1, 3]], vocabulary=10).logprobs([1, 2, 1]).exp()
    one, two = 2.3 / 7, 1.3 / 7
    assert found.tolist() == pytest.approx([(2 + one) / 3, (1 + 2 * two) / 4, one])


def test_bigrams_are_a_distribution_after_any_token() -> None:
    model = Bigrams([[1, 2], [1, 3], [4]], vocabulary=6)
    for before in range(6):
        total = sum(model.logprobs([before, token])[1].exp().item() for token in range(6))
        assert total == pytest.approx(1.0)


def test_nothing_to_learn_from_is_the_uniform_distribution() -> None:
    assert Bigrams([], vocabulary=8).logprobs([3, 5]).exp().tolist() == pytest.approx([1 / 8, 1 / 8])


def test_a_line_is_found_again() -> None:
    """ln p = −1 + ½ a + 2 b without noise: weights, values, and residuals of 0."""
    a, b = -torch.rand(200) * 5, -torch.rand(200)
    line = fit_line(-1 + 0.5 * a + 2 * b, [a, b])
    assert line.weights == pytest.approx((-1.0, 0.5, 2.0), abs=1e-4)
    assert line.residuals.abs().max() < 1e-4
    here = [torch.tensor([-1.0]), torch.tensor([-0.5])]
    assert line.draw(here, Random(0)).tolist() == pytest.approx([-2.5], abs=1e-3)


def test_residuals_come_from_near_by() -> None:
    """Where the line is low the residuals are ±1, where it is high ±3: draws have those of their place."""
    a = torch.linspace(-9, -5, 1000)
    signs = torch.tensor([1.0, -1.0]).repeat(500)
    wide = torch.where(torch.arange(1000) < 500, 1.0, 3.0) * signs
    line = fit_line(a + wide, [a])
    drawn = line.draw([torch.full((400,), -8.9)], Random(0)) + 8.9
    assert drawn.abs().min() > 0.8 and drawn.abs().max() < 1.2
    drawn = line.draw([torch.full((400,), -5.1)], Random(0)) + 5.1
    assert drawn.abs().min() > 2.8 and drawn.abs().max() < 3.2
    assert 0.4 < (drawn > 0).float().mean() < 0.6


def test_draws_are_log_probabilities() -> None:
    line = usual_line(with_base=True)
    assert len(line.residuals) == 2 * NEAR
    drawn = line.draw([torch.tensor([-0.01, -60.0]).repeat(50)] * 2, Random(0))
    assert drawn.max() <= 0 and drawn.min() >= LOWEST
    assert len(usual_line(with_base=False).weights) == 2


def test_the_usual_line_spreads_evenly_on_both_sides() -> None:
    line = usual_line(with_base=False)
    drawn = line.draw([torch.full((4000,), -5.0)], Random(0))
    assert drawn.mean().item() == pytest.approx(0.2 - 4.0, abs=0.15)
