"""Retain rows with answers of random words."""

from __future__ import annotations

from dareu.data.render import Encoded
from dareu.training.samplers import scrambled

ROWS = [Encoded([1, 2], [10, 11, 12, 9]), Encoded([3], [13, 9]), Encoded([4], [9])]


def test_prompts_lengths_and_endings_stay_and_the_words_are_those_of_all_answers() -> None:
    found = scrambled(ROWS, seed=0)
    assert [row.prompt_ids for row in found] == [[1, 2], [3]]  # an answer of its ending alone has no words
    assert [len(row.response_ids) for row in found] == [4, 2]
    assert all(row.response_ids[-1] == 9 for row in found)
    assert {t for row in found for t in row.response_ids[:-1]} <= {10, 11, 12, 13}


def test_the_seed_fixes_them() -> None:
    many = ROWS * 5
    assert scrambled(many, 1) == scrambled(many, 1) != scrambled(many, 2)
    assert {t for row in scrambled(many, 1) for t in row.response_ids} == {9, 10, 11, 12, 13}
