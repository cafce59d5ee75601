"""The guards: reward terms for answers that are empty, endless, repetitive or not fluent."""

from __future__ import annotations

import torch

from dareu.rewards.base import (
    empty_penalty,
    fluency,
    last_token,
    repetition_penalty,
    unfinished_penalty,
)

# Responses of 3, 1, 0 and 2 tokens.
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]])
LAST = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]])


def test_last_token() -> None:
    assert last_token(MASK).equal(LAST)
    assert last_token(MASK.bool()).equal(LAST)
    assert last_token(MASK.float()).equal(LAST)


def test_unfinished_penalty_is_taken_once_from_what_did_not_end() -> None:
    penalty = unfinished_penalty(MASK, torch.tensor([False, True, False, False]))
    assert penalty.equal(torch.tensor([[0.0, 0, -1], [0, 0, 0], [0, 0, 0], [0, -1, 0]]))


def test_empty_penalty_is_taken_once_from_what_has_no_words() -> None:
    penalty = empty_penalty(MASK, torch.tensor([False, True, True, True]))
    assert penalty.equal(torch.tensor([[0.0, 0, 0], [-1, 0, 0], [0, 0, 0], [0, -1, 0]]))


def test_repetition_penalty_falls_on_the_token_that_closes_the_repeat() -> None:
    # 2-grams of 1 2 1 2 1: (1,2) (2,1) then (1,2) again at the 4th token and (2,1) again at the 5th
    ids, mask = torch.tensor([[1, 2, 1, 2, 1]]), torch.ones(1, 5, dtype=torch.long)
    assert repetition_penalty(ids, mask, n=2).tolist() == [[0, 0, 0, -1, -1]]
    # 3-grams: (1,2,1) comes again at the 5th token alone; no 4-gram comes twice
    assert repetition_penalty(ids, mask, n=3).tolist() == [[0, 0, 0, 0, -1]]
    assert not repetition_penalty(ids, mask).any()
    # with the default n = 4, the first repeated 4-gram closes at the 8th token
    ids = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5]])
    assert repetition_penalty(ids, torch.ones_like(ids)).tolist() == [[0, 0, 0, 0, 0, 0, 0, -1, -1]]


def test_repetition_penalty_stays_inside_a_response() -> None:
    # pad tokens repeat without end, and row 1 says what row 0 said: neither counts
    ids = torch.tensor([[1, 2, 3, 0, 0, 0, 0], [1, 2, 3, 1, 2, 3, 0], [0, 0, 0, 0, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0], [0] * 7])
    wanted = [[0] * 7, [0, 0, 0, 0, -1, -1, 0], [0] * 7]
    assert repetition_penalty(ids, mask, n=2).tolist() == wanted


def test_repetition_penalty_is_the_same_for_each_row_alone_and_with_more_padding() -> None:
    ids = torch.randint(0, 3, (5, 12), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(12) < torch.tensor([[12], [9], [6], [2], [0]])).long()
    whole = repetition_penalty(ids, mask, n=2)
    assert whole.any()
    alone = torch.cat([repetition_penalty(ids[i : i + 1], mask[i : i + 1], n=2) for i in range(5)])
    assert alone.equal(whole)
    wider = repetition_penalty(torch.cat([ids, ids], 1), torch.cat([mask, 0 * mask], 1), n=2)
    assert wider[:, :12].equal(whole) and not wider[:, 12:].any()


def test_fluency() -> None:
    # −2.5/5, −10 cut to −5/5, 0, and a token outside the response
    logps = torch.tensor([[-2.5, -10.0, 0.0, -1.0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    assert fluency(logps, mask).tolist() == [[-0.5, -1.0, 0.0, 0.0]]
    assert fluency(logps, mask, clip=10.0).tolist() == [[-0.25, -1.0, 0.0, 0.0]]
    assert fluency(torch.tensor([[-torch.inf]]), mask[:, :1]).tolist() == [[-1.0]]


def test_guards_do_not_depend_on_padding() -> None:
    wider = torch.cat([MASK, torch.zeros(4, 2, dtype=torch.long)], 1)
    flags = torch.tensor([True, False, False, True])
    for penalty in (unfinished_penalty, empty_penalty):
        assert penalty(wider, flags)[:, :3].equal(penalty(MASK, flags))
        assert not penalty(wider, flags)[:, 3:].any()
