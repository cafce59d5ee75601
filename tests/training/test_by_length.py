"""Batches of rows of like length: every row once an epoch, few pads, the same order again after an interruption."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from loss_fixture import cut_off, train
from ppo_fixture import FORGET, RETAIN, encoded, largest_difference, original, weights

from dareu.training.samplers import ByLength

RNG = random.Random(3)
LENGTHS = [RNG.randint(5, 100) for _ in range(400)]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    sampler, again = ByLength(LENGTHS, 8, 41), ByLength(LENGTHS, 8, 41)
    first = list(sampler)
    assert sorted(first) == list(range(400)) and first == list(again)
    sampler.set_epoch(1)
    assert sorted(sampler) == list(range(400)) and list(sampler) != first
    assert list(ByLength(LENGTHS, 8, 42)) != first


def test_batches_have_few_pads() -> None:
    order = list(ByLength(LENGTHS, 8, 41))
    cells = sum(8 * max(LENGTHS[i] for i in order[k : k + 8]) for k in range(0, 400, 8))
    assert sum(LENGTHS) <= cells < 1.15 * sum(LENGTHS)
    unsorted = sum(8 * max(LENGTHS[k : k + 8]) for k in range(0, 400, 8))
    assert unsorted > 1.5 * sum(LENGTHS)


def test_resumed_run_walks_on_in_the_same_order(tmp_path: Path) -> None:
    """Cut off in the middle of its second epoch."""
    options: dict[str, Any] = {
        "rows": encoded(original()[1], FORGET | RETAIN)[:5],
        "optim": {"batch_size": 2, "epochs": 3, "save_every": 1},
        "by_length": True,
    }
    whole, _ = train(tmp_path / "whole", "gradient_ascent", **options)
    cut_off(tmp_path / "cut", "gradient_ascent", 4, **options)
    resumed, _ = train(tmp_path / "cut", "gradient_ascent", **options)
    assert largest_difference(weights(whole), weights(resumed)) == 0
    other, _ = train(tmp_path / "other", "gradient_ascent", **{**options, "by_length": False})
    assert largest_difference(weights(whole), weights(other)) > 0  # the key changes batches
