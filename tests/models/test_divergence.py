"""KL divergence in chunks: the numbers and gradients of the plain formula."""

from __future__ import annotations

import math

import pytest
import torch

from dareu.models import divergence
from dareu.models.divergence import kl_divergence


@pytest.fixture(params=[2**22, 6, 3], ids=["whole", "two rows a chunk", "one row a chunk"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(divergence, "CHUNK", request.param)
    return int(request.param)


def test_by_hand(chunk: int) -> None:
    """p = (1/2, 1/4, 1/4), q uniform: KL = ½ ln(3/2) + ½ ln(3/4) = ½ ln(9/8); gradient q − p."""
    p = torch.tensor([0.5, 0.25, 0.25]).log().repeat(3, 1)
    q = torch.zeros(3, 3, requires_grad=True)
    found = kl_divergence(p, q)
    assert found.tolist() == pytest.approx([0.5 * math.log(9 / 8)] * 3)
    (found * torch.tensor([1.0, 2.0, 0.0])).sum().backward()
    third = 1 / 3
    row = [third - 0.5, third - 0.25, third - 0.25]
    assert q.grad is not None
    assert q.grad.flatten().tolist() == pytest.approx([*row, *(2 * x for x in row), 0.0, 0.0, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_change_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    p, logits = torch.randn(2, 5, 11, dtype=dtype), torch.randn(2, 5, 11, dtype=dtype)
    results = []
    for size in (2**22, 22):
        monkeypatch.setattr(divergence, "CHUNK", size)
        q = logits.clone().requires_grad_(True)
        found = kl_divergence(p, q)
        found.square().sum().backward()
        results.append((found.detach(), q.grad))
    for whole, chunked in zip(*results, strict=True):
        assert whole is not None and chunked is not None and chunked.dtype == whole.dtype
        assert torch.allclose(whole.float(), chunked.float(), atol=1e-6 if dtype == torch.float32 else 1e-2)


def test_gradient_in_p_is_autograds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "CHUNK", 3)
    p = torch.zeros(2, 3, requires_grad=True)
    kl_divergence(p, torch.tensor([[1.0, 0.0, 0.0]] * 2)).sum().backward()
    assert p.grad is not None and p.grad.abs().sum() > 0
