"""Which retain rows a step sees: fair, without overlap between ranks, and a pure function of its arguments."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import torch

from dareu.training.samplers import RetainSampler

SHAPES = pytest.mark.parametrize(
    ("size", "batch", "world"), [(12, 4, 1), (7, 3, 1), (10, 4, 3), (5, 8, 2), (1, 2, 2)]
)


def walk(size: int, batch: int, world: int, count: int, seed: int = 0) -> list[int]:
    """All rows of the first `count` batches, every rank in turn."""
    sampler = RetainSampler(range(size), batch, seed)
    return [row for k in range(count) for rank in range(world) for row in sampler.batch(k, rank, world)]


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
    sampler = RetainSampler(range(24), 2, seed=1)
    seen = [row for rank in range(world) for k in range(12 // world) for row in sampler.batch(k, rank, world)]
    assert Counter(seen) == Counter(range(24))


@pytest.mark.parametrize("world", [2, 3])
def test_several_ranks_see_what_one_would_see(world: int) -> None:
    together = walk(10, 4, world, count=6)
    alone = walk(10, 4 * world, 1, count=6)
    assert together == alone


@SHAPES
def test_a_resumed_run_goes_on_where_it_was(size: int, batch: int, world: int) -> None:
    undisturbed = RetainSampler(range(size), batch, seed=5)
    batches = {(k, r): undisturbed.batch(k, r, world) for k in range(20) for r in range(world)}
    for k, rank in itertools.product((19, 3, 11), range(world)):  # a fresh sampler, at any step, in any order
        assert RetainSampler(range(size), batch, seed=5).batch(k, rank, world) == batches[k, rank]
        assert undisturbed.batch(k, rank, world) == batches[k, rank]


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


def test_an_empty_retain_set_is_refused() -> None:
    with pytest.raises(ValueError, match="retain set is empty"):
        RetainSampler([], 4, seed=0)
