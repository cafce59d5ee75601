"""Random numbers of several processes are those of one; their state is left as it was found."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dareu.models.seeds import AllRows, seeded


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))


def test_the_samples_of_two_processes_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = torch.rand(6, 50, generator=torch.Generator().manual_seed(1)).softmax(-1)
    with seeded(7):
        whole = [torch.multinomial(probs, num_samples=1) for _ in range(3)]
    assert len({tuple(drawn.flatten().tolist()) for drawn in whole}) == 3
    for rank in (0, 1):
        as_rank(monkeypatch, rank)
        own = slice(3 * rank, 3 * rank + 3)
        with seeded(7), AllRows() as rows:
            assert [torch.multinomial(probs[own], num_samples=1).tolist() for _ in range(3)] == [
                drawn[own].tolist() for drawn in whole
            ]
        assert rows.samples == 3


def test_two_processes_drop_what_one_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows, of which process 1 has one and fills up with two; its longest row is shorter by two tokens."""
    x = torch.rand(5, 7, 3, generator=torch.Generator().manual_seed(1)) + 1
    with seeded(7):
        whole, after = F.dropout(x, 0.3), torch.rand(1)
    assert 0 < int((whole == 0).sum()) < whole.numel()
    second = torch.cat([x[3:, :5], torch.ones(1, 5, 3)])
    for rank, part in enumerate((x[:3], second)):
        as_rank(monkeypatch, rank)
        with seeded(7), AllRows(rows=5, width=7):
            found, mine = torch.nn.Dropout(0.3)(part), torch.rand(1)
            assert torch.equal(F.dropout(part, 0.3, False), part)
        rows = min(3, 5 - 3 * rank)
        assert torch.equal(found[:rows], whole[3 * rank : 3 * rank + rows, : part.size(1)])
        assert torch.equal(mine, after)  # as many numbers were drawn


def test_outside_the_block_nothing_changes() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(7):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)
