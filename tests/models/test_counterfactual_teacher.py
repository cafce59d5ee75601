"""Alignment of a response with its copies, and the teacher of a case of two tokens."""

from __future__ import annotations

import math

import pytest
import torch

from dareu.data.fictitious_names import replace_name
from dareu.models.counterfactual import (
    Positions,
    Teacher,
    fact_limits,
    likeliest,
    positions,
    teacher,
    without_facts,
)


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
    """Token 1: .9 against a mean of (.2 + .4) / 2 = .3 is a fact, and .3 is below half of .9. Token 2: .6 against .58
    is none. The distributions are the mean's.
    """
    original = torch.tensor([[0.05, 0.05, 0.9], [0.6, 0.2, 0.2]])
    copies = [
        torch.tensor([[0.6, 0.2, 0.2], [0.56, 0.24, 0.2]]),
        torch.tensor([[0.4, 0.2, 0.4], [0.6, 0.2, 0.2]]),
    ]
    found = teacher(original, copies, [PLAIN, PLAIN], GOLD, True, removal=0.05)
    assert found.facts.tolist() == found.untold.tolist() == [True, False]
    assert found.probs[0].tolist() == pytest.approx([0.5, 0.2, 0.3])
    assert found.probs[1].tolist() == pytest.approx([0.58, 0.22, 0.2])


def test_a_fact_that_the_answer_tells_is_not_untold() -> None:
    """.9 against .5 is a fact, but .5 is more than half of .9: the answer's beginning may tell it."""
    original, copy = torch.tensor([[0.05, 0.05, 0.9]]), torch.tensor([[0.3, 0.2, 0.5]])
    found = teacher(original, [copy], [Positions([0], [False])], torch.tensor([2]), True, removal=0.05)
    assert found.facts.tolist() == [True] and found.untold.tolist() == [False]


def test_each_token_averages_the_copies_that_have_it() -> None:
    original = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    copies = [torch.tensor([[0.3, 0.2, 0.5]]), torch.tensor([[0.1, 0.4, 0.5], [0.9, 0.05, 0.05]])]
    aligned = [Positions([0, None], [False, True]), Positions([0, None], [False, True])]
    found = teacher(original, copies, aligned, GOLD, True, removal=0.05)
    assert found.probs[0].tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert found.probs[1].tolist() == pytest.approx([0.5, 0.25, 0.25])  # the name: as the original says it
    assert not found.facts.any()


def test_a_name_that_the_question_lacks_is_a_fact() -> None:
    original = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    aligned = [Positions([0, None], [False, True])]
    found = teacher(original, [original], aligned, GOLD, False, removal=0.05)
    assert found.facts.tolist() == [False, True] and not found.untold.any()


def test_the_base_tells_what_the_original_recalls_from_the_answer_itself() -> None:
    """Under another name the original is as sure of token 1 (.8 beside .82). The base gives it .1, less than half of
    .8: a fact. Token 2: .3 is half of .6 and none; without a base neither is one.
    """
    original = torch.tensor([[0.1, 0.08, 0.82], [0.61, 0.2, 0.19]])
    copy = torch.tensor([[0.15, 0.05, 0.8], [0.6, 0.2, 0.2]])
    base = torch.tensor([0.1, 0.3])
    found = teacher(original, [copy], [PLAIN], GOLD, True, 0.05, base, base_share=0.5)
    assert found.facts.tolist() == [True, False] and not found.untold.any()
    assert not teacher(original, [copy], [PLAIN], GOLD, True, 0.05).facts.any()


def test_the_base_is_not_asked_about_names_or_unsure_tokens() -> None:
    """Token 1 is the name, which the question has. The original gives token 2 only .45."""
    original = torch.tensor([[0.1, 0.1, 0.8], [0.45, 0.3, 0.25]])
    base = torch.tensor([0.0, 0.0])
    aligned = [Positions([None, 1], [True, False])]
    found = teacher(original, [original], aligned, GOLD, True, 0.05, base, base_share=0.5)
    assert torch.allclose(found.probs, original) and not found.facts.any()


def row(probs: list[list[float]], gold: list[int], facts: list[bool], untold: list[bool]) -> Teacher:
    return Teacher(torch.tensor(probs), torch.tensor(gold), torch.tensor(facts), torch.tensor(untold))


def test_limits_spread_as_the_untold_facts_around_the_level() -> None:
    """Untold facts of .1 and .001; one that the answer tells takes one of the two. Level .01 is their geometric mean's
    place: the mean of all limits is ln .01, and the first two stay ln 100 apart. No fact: 0.
    """
    one = row([[0.1, 0.9], [0.5, 0.5]], [0, 0], [True, False], [True, False])
    two = row([[0.001, 0.999], [0.8, 0.2]], [0, 0], [True, True], [True, False])
    for seed in range(4):
        first, second = fact_limits([one, two], 0.01, seed)
        assert first[1] == 0.0
        values = [first[0].item(), second[0].item(), second[1].item()]
        assert sum(values) / 3 == pytest.approx(math.log(0.01), rel=1e-5)
        assert values[0] - values[1] == pytest.approx(math.log(100), rel=1e-5)
        assert min(abs(values[2] - values[0]), abs(values[2] - values[1])) < 1e-5
    assert len({fact_limits([one, two], 0.01, seed)[1][1].item() for seed in range(20)}) == 2


def test_limits_without_untold_facts_are_the_level() -> None:
    told = row([[0.7, 0.3], [0.6, 0.4]], [0, 1], [True, False], [False, False])
    assert fact_limits([told], 0.02, 0)[0].tolist() == pytest.approx([math.log(0.02), 0.0])
    assert fact_limits([row([[0.7, 0.3]], [0], [False], [False])], 0.02, 0)[0].tolist() == [0.0]


def test_the_likeliest_tokens_and_the_own_one() -> None:
    """Of .1, .2, .7 with gold token 0 two are kept: token 0 in the first column, then token 2, renormalised by .8."""
    ids, kept = likeliest(row([[0.1, 0.2, 0.7]], [0], [True], [True]), 2)
    assert ids.tolist() == [[0, 2]] and kept.gold.tolist() == [0]
    assert kept.probs[0].tolist() == pytest.approx([0.125, 0.875])
    ids, kept = likeliest(row([[0.1, 0.2, 0.7]], [1], [False], [False]), 9)
    assert ids.tolist() == [[1, 2, 0]] and kept.probs[0].tolist() == pytest.approx([0.2, 0.7, 0.1])


def test_facts_at_their_limits_by_hand() -> None:
    """Gold token at .1, the others' .2 and .6 scaled to .9: .225 and .675. A token that is no fact keeps its row."""
    found = row([[0.2, 0.2, 0.6], [0.1, 0.2, 0.7]], [1, 2], [True, False], [True, False])
    probs = without_facts(found, torch.tensor([math.log(0.1), 0.0]))
    assert probs[0].tolist() == pytest.approx([0.225, 0.1, 0.675])
    assert probs[1].tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert found.probs[0].tolist() == pytest.approx([0.2, 0.2, 0.6])  # the teacher itself is not changed


def test_a_fact_that_all_copies_are_sure_of_leaves_a_distribution() -> None:
    sure = row([[0.0, 0.0, 1.0]], [2], [True], [False])
    assert without_facts(sure, torch.tensor([math.log(0.2)]))[0].tolist() == pytest.approx([0.4, 0.4, 0.2])
