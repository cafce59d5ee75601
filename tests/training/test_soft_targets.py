"""Soft targets: top tokens, their loss and its gradient, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dareu.training.soft_targets import (
    SoftTargets,
    divergence_below_limits,
    divergence_from_targets,
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
    targets = [keep_top(torch.rand(n, 7), 3)._replace(limits=-torch.rand(n)) for n in (2, 5, 1)]
    save_targets(tmp_path / "t.safetensors", targets)
    for before, after in zip(targets, load_targets(tmp_path / "t.safetensors"), strict=True):
        assert all(map(torch.equal, before, after))


def test_what_a_gold_token_has_above_its_limit() -> None:
    """Two tokens. The gold token of the first has p = ½ and the limit ln .05: ln 10 above it, halved by the mean. The
    second's p = .9 has no limit.
    """
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05]])
    ids, targets = torch.tensor([[1, 2], [0, 1]]), torch.tensor([[0.6, 0.4], [0.5, 0.5]])
    logits, gold = probs.log().requires_grad_(True), torch.tensor([0, 0])
    limits = torch.tensor([math.log(0.05), 0.0])
    plain = divergence_from_targets(logits, ids, targets)
    loss = divergence_below_limits(logits, gold, ids, targets, limits, level_weight=2.0)
    assert loss.item() == pytest.approx(plain.item() + 2.0 * math.log(10) / 2, rel=1e-5)
    (loss - plain).backward()
    assert logits.grad is not None  # weight / N · (1[gold] − p) on the first token, nothing on the second
    assert logits.grad[0].tolist() == pytest.approx([0.5, -0.3, -0.2], abs=1e-5)
    assert logits.grad[1].tolist() == [0.0, 0.0, 0.0]


def test_below_the_limit_nothing_is_added() -> None:
    probs, gold = torch.tensor([[0.01, 0.59, 0.4]]), torch.tensor([0])
    ids, targets = torch.tensor([[1, 0]]), torch.tensor([[0.98, 0.02]])
    plain = divergence_from_targets(probs.log(), ids, targets)
    assert divergence_below_limits(probs.log(), gold, ids, targets, torch.tensor([-3.9]), 5.0) == plain
    above = divergence_below_limits(probs.log(), gold, ids, targets, torch.tensor([math.log(0.005)]), 5.0)
    assert above.item() == pytest.approx(plain.item() + 5.0 * math.log(2), rel=1e-5)
