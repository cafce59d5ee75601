"""Boundary prompts: the nearest first, the others by seed, never one twice."""

from __future__ import annotations

import pytest

from dareu.data.boundary_prompts import nearest, retain_prompts
from dareu.data.corpus import Sample


def _samples(prompts: list[str], owner: str) -> list[Sample]:
    return [Sample(f"{owner}/{i}", owner, prompt, "x") for i, prompt in enumerate(prompts)]


FORGET = _samples(["Where was Ann Weaver born?", "Which river runs by?"], "ann")
RETAIN = _samples(
    [
        "How tall is the tower?",  # shares no word
        "Where was Bo Potter born?",  # three words of the first
        "Which river runs by?",  # is the second
        "Where was Ann Weaver taught?",  # four words of the first, the rarest among them
        "How tall is the other tower?",
    ],
    "bo",
)


def test_the_nearest_come_first() -> None:
    assert nearest(FORGET, RETAIN, 3) == [2, 3, 1]
    assert nearest(FORGET, RETAIN, 0) == []
    assert nearest(FORGET, RETAIN, 5)[3:] == [0, 4]  # equals in their order


def test_nearest_does_not_depend_on_the_order_of_the_forget_prompts() -> None:
    assert nearest(FORGET[::-1], RETAIN, 5) == nearest(FORGET, RETAIN, 5)


@pytest.mark.parametrize(
    ("share", "boundary", "total", "near"),
    [
        (0.5, 0.5, 2, 1),  # as many as the two forget prompts
        (0.6, 1.0, 3, 3),  # 2 · .6/.4
        (0.6, 0.0, 3, 0),
        (0.9, 0.4, 5, 2),  # eighteen wanted, five are there
        (0.0, 1.0, 0, 0),
    ],
)
def test_shares_of_retain_prompts(share: float, boundary: float, total: int, near: int) -> None:
    found = retain_prompts(FORGET, RETAIN, share, boundary, seed=3)
    assert len({sample.id for sample, _ in found}) == len(found) == total
    assert [sample for sample, close in found if close] == [RETAIN[i] for i in (2, 3, 1)[:near]]
    assert found == retain_prompts(FORGET, RETAIN, share, boundary, seed=3)


def test_the_others_are_drawn_by_the_seed() -> None:
    drawn = {tuple(s.id for s, _ in retain_prompts(FORGET, RETAIN, 0.5, 0.0, seed)) for seed in range(20)}
    assert len(drawn) > 3
