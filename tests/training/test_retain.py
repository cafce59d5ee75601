"""Which retain rows a step sees: fair, without overlap between ranks, and a pure function of its arguments."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import torch

from dareu.data.render import Encoded
from dareu.training.samplers import Part, RetainSampler, token_share

SHAPES = pytest.mark.parametrize(
    ("size", "batch", "world"), [(12, 4, 1), (7, 3, 1), (10, 4, 3), (5, 8, 2), (1, 2, 2)]
)


def walk(size: int, batch: int, world: int, count: int, seed: int = 0) -> list[int]:
    """All rows of the first `count` updates of `world` times `batch` rows, every rank in turn."""
    sampler = RetainSampler(range(size), batch * world, seed)
    return [row for k in range(count) for rank in range(world) for row in sampler.batch(k, part(rank, world))]


def part(rank: int, world: int) -> Part:
    return Part(rank, rank + 1, world)


@SHAPES
def test_every_row_comes_once_a_lap(size: int, batch: int, world: int) -> None:
    seen = walk(size, batch, world, count=40)
    laps = [seen[i : i + size] for i in range(0, len(seen) - size + 1, size)]
    assert len(laps) >= 2 and all(sorted(lap) == list(range(size)) for lap in laps)
    if size > 4:
        assert len({tuple(lap) for lap in laps}) > 1  # each lap in an order of its own
        assert any(lap != sorted(lap) for lap in laps)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_never_share_a_batch(world: int) -> None:
    # 24 rows in batches of 2: 12 / world batches on each rank make a lap, in which all rows differ
    sampler = RetainSampler(range(24), 2 * world, seed=1)
    seen = [
        row
        for rank in range(world)
        for k in range(12 // world)
        for row in sampler.batch(k, part(rank, world))
    ]
    assert Counter(seen) == Counter(range(24))


@pytest.mark.parametrize("world", [2, 3])
def test_several_ranks_see_what_one_would_see(world: int) -> None:
    together = walk(10, 4, world, count=6)
    alone = walk(10, 4 * world, 1, count=6)
    assert together == alone


@SHAPES
def test_a_resumed_run_goes_on_where_it_was(size: int, batch: int, world: int) -> None:
    undisturbed = RetainSampler(range(size), batch * world, seed=5)
    batches = {(k, r): undisturbed.batch(k, part(r, world)) for k in range(20) for r in range(world)}
    for k, rank in itertools.product((19, 3, 11), range(world)):  # a fresh sampler, at any step, in any order
        fresh = RetainSampler(range(size), batch * world, seed=5)
        assert fresh.batch(k, part(rank, world)) == batches[k, rank]
        assert undisturbed.batch(k, part(rank, world)) == batches[k, rank]


def test_batches_are_a_function_of_the_seed_alone() -> None:
    random.seed(1)
    torch.manual_seed(1)
    state = random.getstate()
    first = walk(12, 5, 1, count=6, seed=3)
    assert random.getstate() == state
    random.seed(2)
    torch.manual_seed(2)
    assert walk(12, 5, 1, count=6, seed=3) == first
    assert walk(12, 5, 1, count=6, seed=4) != first


def test_an_order_is_the_same_on_every_machine() -> None:
    # What a run drew is part of its results: the order of seed 0 is fixed for good.
    order = list(range(6))
    random.Random("0/0").shuffle(order)
    assert walk(6, 6, 1, count=1) == order
    assert sorted(order) != order


def test_rows_themselves_are_given() -> None:
    rows = ["a", "b", "c"]
    assert sorted(RetainSampler(rows, 3, seed=0).batch(0)) == rows


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 12])
def test_an_update_sees_the_same_rows_however_it_is_cut_up(parts: int) -> None:
    """Five rows beside twelve: no part is rounded up, and where one has none it takes a row that counts nothing."""
    rows = [Encoded([1], [2] * length) for length in range(1, 12)]
    sampler = RetainSampler(rows, 5, seed=3)
    cut = [Part(12 * i // parts, 12 * (i + 1) // parts, 12) for i in range(parts)]
    assert [n for one in cut for n in sampler.numbers(7, one)] == sampler.numbers(7)
    assert len(sampler.numbers(7)) == 5
    assert sum(token_share(sampler, 7, one) for one in cut) == pytest.approx(1.0)
    assert [len(sampler.batch(7, one)) for one in cut] == [
        max(len(sampler.numbers(7, one)), 1) for one in cut
    ]
    assert [token_share(sampler, 7, one) == 0 for one in cut] == [not sampler.numbers(7, one) for one in cut]


def test_an_update_of_fewer_rows_sees_as_many_fewer_retain_rows() -> None:
    """Seven of twelve rows at an epoch's end: ⌈7 · 5 / 12⌉ = 3 rows; the shares of 4 and 3 rows are of these three."""
    rows = [Encoded([1], [2] * length) for length in range(1, 12)]
    sampler = RetainSampler(rows, 5, seed=3)
    first, second = Part(0, 4, 12), Part(4, 7, 12)
    assert sampler.numbers(2, first) + sampler.numbers(2, second) == sampler.numbers(2)[:3]
    shares = [token_share(sampler, 2, one, rows=7) for one in (first, second)]
    tokens = [len(rows[n].response_ids) for n in sampler.numbers(2)[:3]]
    assert shares == pytest.approx([sum(tokens[:2]) / sum(tokens), tokens[2] / sum(tokens)])


def test_an_empty_retain_set_is_refused() -> None:
    with pytest.raises(ValueError, match="retain set is empty"):
        RetainSampler([], 4, seed=0)
