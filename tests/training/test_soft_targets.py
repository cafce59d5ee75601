"""Soft targets: top tokens, their loss and its gradient, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dareu.training.losses import (
    SoftTargets,
    divergence_from_targets,
    divergence_to_levels,
    keep_top,
    load_targets,
    save_targets,
)


def test_top_tokens_are_renormalised() -> None:
    kept = keep_top(torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.1, 0.4]]), 2)
    assert kept.ids.tolist() == [[1, 2], [0, 2]]
    assert kept.probs.flatten().tolist() == pytest.approx([2 / 3, 1 / 3, 5 / 9, 4 / 9])
    assert keep_top(torch.tensor([[0.1, 0.9]]), 9).probs.tolist() == [
        [pytest.approx(0.9), pytest.approx(0.1)]
    ]


def test_divergence_by_hand() -> None:
    """Target (3/4, 1/4) on tokens 2 and 0 of three, uniform logits: ¾ ln(9/4) + ¼ ln(3/4); gradient (q − p) / N."""
    logits = torch.zeros(2, 3, requires_grad=True)
    ids, probs = torch.tensor([[2, 0], [2, 0]]), torch.tensor([[0.75, 0.25], [0.75, 0.25]])
    loss = divergence_from_targets(logits, ids, probs)
    assert loss.item() == pytest.approx(0.75 * math.log(9 / 4) + 0.25 * math.log(3 / 4))
    loss.backward()
    assert logits.grad is not None
    third = 1 / 3
    assert logits.grad[0].tolist() == pytest.approx([(third - 0.25) / 2, third / 2, (third - 0.75) / 2])


def test_the_divergence_of_a_target_from_itself_is_zero() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2]])
    kept = keep_top(probs, 3)
    assert divergence_from_targets(probs.log(), kept.ids, kept.probs).item() == pytest.approx(0.0, abs=1e-6)
    gone = SoftTargets(
        torch.tensor([[0, 1]]), torch.tensor([[1.0, 0.0]]), torch.zeros(1)
    )  # a token of probability 0 adds nothing
    assert math.isfinite(divergence_from_targets(probs.log(), gone.ids, gone.probs).item())


def test_targets_survive_the_disk(tmp_path: Path) -> None:
    targets = [keep_top(torch.rand(n, 7), 3)._replace(levels=-torch.rand(n)) for n in (2, 5, 1)]
    save_targets(tmp_path / "t.safetensors", targets)
    for before, after in zip(targets, load_targets(tmp_path / "t.safetensors"), strict=True):
        assert all(map(torch.equal, before, after))


def test_the_distance_from_a_level_by_hand() -> None:
    """Three tokens. The gold token of the first has p = ½ and the level ln .05: ln 10 above it. That of the second has
    p = .01 and the level ln .04: ln 4 below it, which counts .1. The third is no fact. Mean: (ln 10 + .1 ln 4) / 3.
    """
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.01, 0.59, 0.4], [0.9, 0.05, 0.05]])
    ids, targets = (
        torch.tensor([[1, 2], [1, 0], [0, 1]]),
        torch.tensor([[0.6, 0.4], [0.96, 0.04], [0.5, 0.5]]),
    )
    logits, gold = probs.log().requires_grad_(True), torch.tensor([0, 0, 0])
    levels = torch.tensor([math.log(0.05), math.log(0.04), 0.0])
    plain = divergence_from_targets(logits, ids, targets)
    loss = divergence_to_levels(logits, gold, ids, targets, levels, level_weight=2.0)
    assert loss.item() == pytest.approx(plain.item() + 2.0 * (math.log(10) + 0.1 * math.log(4)) / 3, rel=1e-5)
    (loss - plain).backward()
    assert logits.grad is not None  # weight / N · (1[gold] − p), and .1 of it with the other sign
    third, below = 2 / 3, 0.1 * 2 / 3
    assert logits.grad[0].tolist() == pytest.approx([0.5 * third, -0.3 * third, -0.2 * third], abs=1e-5)
    assert logits.grad[1].tolist() == pytest.approx([-0.99 * below, 0.59 * below, 0.4 * below], abs=1e-5)
    assert logits.grad[2].tolist() == [0.0, 0.0, 0.0]
