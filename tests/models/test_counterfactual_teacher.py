"""Alignment of a response with its copies, and the teacher of a case of two tokens."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from models_fixture import make_folder

from dareu.data.corpus import Sample
from dareu.data.fictitious_names import replace_name
from dareu.data.render import encode
from dareu.errors import DataError
from dareu.models.counterfactual import (
    Pair,
    Positions,
    Teacher,
    counterfactual_pair,
    fact_levels,
    likeliest,
    positions,
    teacher,
    with_base,
    without_facts,
)
from dareu.models.load import load_model


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


def test_the_bytes_of_a_character_are_paired_in_their_order() -> None:
    """An emoji of three byte tokens, all with its offsets: the first belongs to the first."""
    old, new = "Ann 🙂.", "Bob Roe 🙂."
    _, replaced = replace_name(old, "Ann", "Bob Roe")
    one = [(0, 3), (4, 5), (4, 5), (4, 5), (5, 6)]
    other = [(0, 3), (4, 7), (8, 9), (8, 9), (8, 9), (9, 10)]
    assert new[8] == old[4] == "🙂"
    assert positions(one, other, replaced, 6, 7).of == [None, 2, 3, 4, 5, 6]


PLAIN = Positions([0, 1], [False, False])
GOLD = torch.tensor([2, 0])


def test_teacher_by_hand() -> None:
    """The distributions are the copies' mean, and the original's own probabilities of the response are kept."""
    original = torch.tensor([[0.05, 0.05, 0.9], [0.6, 0.2, 0.2]])
    copies = [
        torch.tensor([[0.6, 0.2, 0.2], [0.56, 0.24, 0.2]]),
        torch.tensor([[0.4, 0.2, 0.4], [0.6, 0.2, 0.2]]),
    ]
    found = teacher(original, copies, [PLAIN, PLAIN], GOLD, True)
    assert found.probs[0].tolist() == pytest.approx([0.5, 0.2, 0.3])
    assert found.probs[1].tolist() == pytest.approx([0.58, 0.22, 0.2])
    assert found.known.exp().tolist() == pytest.approx([0.9, 0.6])
    assert not found.asked.any()


def test_each_token_averages_the_copies_that_have_it() -> None:
    original = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    copies = [torch.tensor([[0.3, 0.2, 0.5]]), torch.tensor([[0.1, 0.4, 0.5], [0.9, 0.05, 0.05]])]
    aligned = [Positions([0, None], [False, True]), Positions([0, None], [False, True])]
    found = teacher(original, copies, aligned, GOLD, True)
    assert found.probs[0].tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert found.probs[1].tolist() == pytest.approx([0.5, 0.25, 0.25])  # the name: as the original says it
    assert found.asked.tolist() == [False, True]


def test_a_name_that_the_question_lacks_is_not_given() -> None:
    original = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    aligned = [Positions([0, None], [False, True])]
    assert not teacher(original, [original], aligned, GOLD, False).asked.any()


def row(
    probs: list[list[float]],
    gold: list[int],
    known: list[float] | None = None,
    given: list[bool] | None = None,
) -> Teacher:
    return Teacher(
        torch.tensor(probs),
        torch.tensor(gold),
        torch.tensor(known or [0.9] * len(gold)).log(),
        torch.tensor(given or [False] * len(gold)),
    )


def test_what_a_model_that_never_saw_them_finds_less_likely_is_a_fact() -> None:
    """The original gives .9 to each. Expected: .02 is a fact; .73 is not below .8 · .9 = .72; .71 is; .02 again, but
    of a name that the question has.
    """
    expected = torch.tensor([0.02, 0.73, 0.71, 0.02]).log()
    found = row([[0.5, 0.5]] * 4, [0] * 4, given=[False, False, False, True])
    levels = fact_levels(found, expected)
    assert levels.tolist() == pytest.approx([math.log(0.02), 0.0, math.log(0.71), 0.0])


def test_the_likeliest_tokens_and_the_own_one() -> None:
    """Of .1, .2, .7 with gold token 0 two are kept: token 0 in the first column, then token 2, renormalised by .8."""
    ids, kept = likeliest(row([[0.1, 0.2, 0.7]], [0]), 2)
    assert ids.tolist() == [[0, 2]] and kept.gold.tolist() == [0]
    assert kept.probs[0].tolist() == pytest.approx([0.125, 0.875])
    ids, kept = likeliest(row([[0.1, 0.2, 0.7]], [1]), 9)
    assert ids.tolist() == [[1, 2, 0]] and kept.probs[0].tolist() == pytest.approx([0.2, 0.7, 0.1])


def test_facts_at_their_levels_by_hand() -> None:
    """Gold token at .1, the others' .2 and .6 scaled to .9: .225 and .675. A token that is no fact keeps its row."""
    found = row([[0.2, 0.2, 0.6], [0.1, 0.2, 0.7]], [1, 2])
    probs = without_facts(found, torch.tensor([math.log(0.1), 0.0]))
    assert probs[0].tolist() == pytest.approx([0.225, 0.1, 0.675])
    assert probs[1].tolist() == pytest.approx([0.1, 0.2, 0.7])
    assert found.probs[0].tolist() == pytest.approx([0.2, 0.2, 0.6])  # the teacher itself is not changed


def test_what_a_fact_had_goes_to_tokens_that_copies_and_base_find_likely() -> None:
    """The copies give the fact .8, the base's three likeliest tokens are the fact itself, token 1 and token 3. Weights
    √(.4 · .09) and √(.1 · .01): six parts of seven and one, so .8 is shared out as .686 and .114, beside .09, .01 and
    the .1 of token 2, which the base does not know. The row that is no fact stays.
    """
    found = row([[0.8, 0.09, 0.1, 0.01], [0.8, 0.09, 0.1, 0.01]], [0, 0])
    ids, base = torch.tensor([[0, 1, 3]] * 2), torch.tensor([[0.5, 0.4, 0.1]] * 2)
    shared = with_base(found, torch.tensor([True, False]), ids, base).probs
    assert shared[0].tolist() == pytest.approx([0.0, 0.09 + 0.8 * 6 / 7, 0.1, 0.01 + 0.8 / 7])
    assert shared.sum(-1).tolist() == pytest.approx([1.0, 1.0])
    assert shared[1].tolist() == found.probs[1].tolist() == pytest.approx([0.8, 0.09, 0.1, 0.01])


def test_without_a_token_in_common_the_copies_keep_what_a_fact_had() -> None:
    found = row([[0.9, 0.1, 0.0]], [0])
    shared = with_base(found, torch.tensor([True]), torch.tensor([[0, 2]]), torch.tensor([[0.3, 0.7]]))
    assert shared.probs[0].tolist() == pytest.approx([0.9, 0.1, 0.0])


def test_a_fact_that_all_copies_are_sure_of_leaves_a_distribution() -> None:
    sure = row([[0.0, 0.0, 1.0]], [2])
    assert without_facts(sure, torch.tensor([math.log(0.2)]))[0].tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_a_copy_that_is_too_long_is_left_out(tmp_path: Path) -> None:
    """The context holds the sample and a copy with a short name; with a long name alone the sample stands in."""
    _, tokenizer = load_model(make_folder(tmp_path / "base"))
    sample = Sample("s", "o", "Who wrote the second well?", "Jonas Huaman, a potter from Nantes.")
    row = encode(tokenizer, sample.prompt, sample.response, "qa", 512)
    room = len(row.prompt_ids) + len(row.response_ids)
    short, long = "Bo Well", "Bartholomew Featherstonehaugh-Cholmondeley"

    def pair(*others: str) -> Pair:
        return counterfactual_pair(tokenizer, sample, "Jonas Huaman", others, "qa", room)

    both = pair(long, short)
    assert len(both.copies) == len(both.aligned) == 1 and both.copies == pair(short).copies
    alone = pair(long)
    assert alone.copies == [row] and alone.aligned[0].of == list(range(len(row.response_ids)))
    assert (
        alone.aligned[0].named == both.aligned[0].named
        and any(alone.aligned[0].named)
        and not all(alone.aligned[0].named)
    )
    with pytest.raises(DataError, match="longer|more than"):
        counterfactual_pair(tokenizer, sample, "Jonas Huaman", [short], "qa", room - 1)
