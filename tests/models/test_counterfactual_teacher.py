"""Alignment of a response with its copies, and the teacher of a case of two tokens."""

from __future__ import annotations

import pytest
import torch

from dareu.data.fictitious_names import replace_name
from dareu.models.counterfactual import Positions, positions, teacher


def spans(text: str, tokens: list[str]) -> list[tuple[int, int]]:
    """Offsets of `tokens`, which follow one another in `text`."""
    found, at = [], 0
    for token in tokens:
        at = text.index(token, at)
        found.append((at, at + len(token)))
        at += len(token)
    return found


def test_names_of_unlike_token_length() -> None:
    """ "Ann Lee" is two tokens, "Konstantina Wu" four: what follows is three and five tokens on."""
    old, tokens = "Ann Lee was here.", ["Ann", "Lee", "was", "here", "."]
    new, replaced = replace_name(old, "Ann Lee", "Konstantina Wu")
    fresh = ["Kon", "stan", "tina", "Wu", "was", "here", "."]
    found = positions(spans(old, tokens), spans(new, fresh), replaced, len(tokens) + 1, len(fresh) + 1)
    assert found == Positions([None, None, 4, 5, 6, 7], [True, True, False, False, False, False])


def test_a_token_that_swallows_the_name_has_no_counterpart() -> None:
    old = "Ann's"
    new, replaced = replace_name(old, "Ann", "Bo")
    found = positions(spans(old, ["Ann's"]), spans(new, ["Bo", "'s"]), replaced, 1, 2)
    assert found == Positions([None], [True])


def test_names_that_stand_nowhere_leave_all_tokens_beside_themselves() -> None:
    old = "It rained."
    new, replaced = replace_name(old, "Ann", "Bo")
    tokens = ["It", "rained", "."]
    assert positions(spans(old, tokens), spans(new, tokens), replaced, 3, 3).of == [0, 1, 2]


PLAIN = Positions([0, 1], [False, False])
GOLD = torch.tensor([2, 0])


def test_teacher_by_hand() -> None:
    """Token 1: .9 against a mean of (.2 + .4) / 2 = .3 is a fact: (.5, .2, 0) of the mean is renormalised by .7.
    Token 2: .6 against .58 is none: the mean stays.
    """
    original = torch.tensor([[0.05, 0.05, 0.9], [0.6, 0.2, 0.2]])
    copies = [
        torch.tensor([[0.6, 0.2, 0.2], [0.56, 0.24, 0.2]]),
        torch.tensor([[0.4, 0.2, 0.4], [0.6, 0.2, 0.2]]),
    ]
    found = teacher(original, copies, [PLAIN, PLAIN], GOLD, True, removal=0.05)
    assert found[0].tolist() == pytest.approx([0.5 / 0.7, 0.2 / 0.7, 0.0])
    assert found[1].tolist() == pytest.approx([0.58, 0.22, 0.2])


def test_each_token_averages_the_copies_that_have_it() -> None:
    original = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    copies = [torch.tensor([[0.3, 0.2, 0.5]]), torch.tensor([[0.1, 0.4, 0.5], [0.9, 0.05, 0.05]])]
    aligned = [Positions([0, None], [False, True]), Positions([0, None], [False, True])]
    found = teacher(original, copies, aligned, GOLD, True, removal=0.05)
    assert found[0].tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert found[1].tolist() == pytest.approx([0.5, 0.25, 0.25])  # the name: as the original says it


def test_a_name_that_the_question_lacks_is_a_fact() -> None:
    original = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    aligned = [Positions([0, None], [False, True])]
    found = teacher(original, [original], aligned, GOLD, False, removal=0.05)
    assert found[0].tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert found[1].tolist() == pytest.approx([0.0, 0.5, 0.5])


def test_a_fact_that_all_copies_are_sure_of_leaves_a_distribution() -> None:
    original, sure = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.9]])
    found = teacher(original, [sure], [Positions([0], [False])], torch.tensor([2]), True, removal=0.05)
    assert found.sum().item() == pytest.approx(1.0) and torch.isfinite(found).all()
