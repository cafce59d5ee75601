"""What a model that never saw an answer gives its tokens: bigrams by hand, the line, and its residuals."""

from __future__ import annotations

from random import Random

import pytest
import torch

from dareu.models.never_saw import LOWEST, NAME, Bigrams, fit_line, stretched, usual_line


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


def test_after_a_name_of_many_tokens_stands_what_follows_names() -> None:
    """After names of three tokens and of one stands 5: P(5 | name) = (2 + P(5)) / 3, with P(5) = (2 + 2/10) / 8."""
    model = Bigrams([[NAME, NAME, NAME, 5], [NAME, 5]], vocabulary=10)
    assert model.logprobs([NAME, NAME, 5])[2].exp().item() == pytest.approx((2 + 2.2 / 8) / 3)


def test_eight_answers_to_one_question_tell_its_form() -> None:
    """ "5 1" eight times to "a", "5 2" eight times to "b": P(1) = (8 + .4) / 37, P(1 | 5) = (8 + 2 P(1)) / 18.

    To "a", P(1 | 5) = (8 + that) / 9, at the second place (8 + that) / 9 again, and after the beginning and 5 once
    more; to a question of seven answers, and where the question is not known, P(1 | 5) is that of all.
    """
    answers, questions = [[5, 1]] * 8 + [[5, 2]] * 8, ["a"] * 8 + ["b"] * 8
    model = Bigrams([*answers, [4]], 10, [*questions, "c"])
    one = (8 + 4 * 0.1) / 37
    of_all = (8 + 2 * one) / 18
    assert model.logprobs([5, 1], "c")[1].exp().item() == pytest.approx(of_all)
    assert model.logprobs([5, 1])[1].exp().item() == pytest.approx(of_all)
    once = (8 + of_all) / 9
    twice = (8 + once) / 9
    assert model.logprobs([5, 1], "a")[1].exp().item() == pytest.approx((8 + twice) / 9)
    elsewhere = (
        model.logprobs([7, 5, 1], "a")[2].exp().item()
    )  # neither this place nor these two tokens before
    assert elsewhere == pytest.approx(once)
    texts = Bigrams(answers, 10, [""] * 16)  # passages have no question: nothing tells one from another
    assert texts.logprobs([5, 1], "") == pytest.approx(texts.logprobs([5, 1]))
    seven = Bigrams(answers[1:], 10, questions[1:])
    assert seven.logprobs([5, 1], "a") == pytest.approx(seven.logprobs([5, 1]))


def test_nothing_to_learn_from_is_the_uniform_distribution() -> None:
    assert Bigrams([], vocabulary=8).logprobs([3, 5]).exp().tolist() == pytest.approx([1 / 8, 1 / 8])


def test_a_line_is_found_again() -> None:
    """ln p = −1 + 2 · hint without noise: start, slope, values, and residuals of 0."""
    hints = -torch.rand(200)
    line = fit_line(-1 + 2 * hints, hints)
    assert (line.start, line.slope) == pytest.approx((-1.0, 2.0), abs=1e-4)
    assert line.residuals.abs().max() < 1e-4
    assert line.draw(torch.tensor([-0.5]), Random(0)).tolist() == pytest.approx([-2.0], abs=1e-3)


def test_hints_that_are_all_the_same_give_the_mean() -> None:
    line = fit_line(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0]))
    assert line.start + line.slope * -2 == pytest.approx(-2.0)


def test_residuals_come_from_near_by() -> None:
    """Where the line is low the residuals are ±1, where it is high ±3: draws have those of their place."""
    hints = torch.linspace(-9, -5, 1000)
    signs = torch.tensor([1.0, -1.0]).repeat(500)
    wide = torch.where(torch.arange(1000) < 500, 1.0, 3.0) * signs
    line = fit_line(hints + wide, hints)
    for at, least, most in ((-8.9, 0.8, 1.2), (-5.1, 2.8, 3.2)):
        drawn = line.draw(torch.full((400,), at), Random(0)) - at
        assert drawn.abs().min() > least
        assert drawn.abs().max() < most
        assert 0.4 < (drawn > 0).float().mean() < 0.6


def test_the_usual_line_says_nothing_of_what_is_not_unlikely() -> None:
    """A hint of .11 may be wording: no fact (0). At a hint of −3 (.05) the values lie around −4.95."""
    line = usual_line()
    assert line.draw(torch.tensor([0.11]).log(), Random(0)) == 0.0
    unsure = line.draw(torch.full((4000,), -3.0), Random(0))
    assert unsure.mean().item() == pytest.approx(-4.95, abs=0.2)
    assert 2.0 < unsure.std() < 3.0
    assert line.draw(torch.tensor([-60.0]), Random(0)) == LOWEST


def test_stretched_by_hand() -> None:
    """Below ln .8 lie −2, −6 and −4: mean −4. 1.2 times as far: −1.6, −6.4, −4; −.1 would be .68 and is 0."""
    found = stretched([torch.tensor([-2.0, -0.1]), torch.tensor([-6.0, -4.0])])
    assert found[0].tolist() == pytest.approx([-1.6, 0.0])
    assert found[1].tolist() == pytest.approx([-6.4, -4.0])
    assert stretched([torch.tensor([-0.1, 0.0])])[0].tolist() == pytest.approx([-0.1, 0.0])
