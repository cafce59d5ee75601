"""Products by oneDNN: float32 as ever, whatever the shape and however often they are differentiated."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from models_fixture import SMALL, TEXTS
from torch import Tensor, nn

from dareu.config import LoraConfig
from dareu.models import cpu_matmul as products
from dareu.models.cpu_matmul import WORTH, Linear, onednn_is_faster, product, with_fast_products
from dareu.models.load import add_lora, load_model
from dareu.models.tiny import make_tiny

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN",
)


@pytest.fixture(autouse=True)
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU where it pays, and for products of any size."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "WORTH", 1)


def pair(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    """A linear layer, and the same through oneDNN."""
    torch.manual_seed(0)
    plain = nn.Linear(6, 5, bias=bias)
    fast = copy.deepcopy(plain)
    return plain, with_fast_products(fast)


def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what goes to oneDNN from here on."""
    seen: list[tuple[int, ...]] = []
    call = products._call

    def noting(x: Tensor, weight: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return call(x, weight)

    monkeypatch.setattr(products, "_call", noting)
    return seen


def test_a_product_worked_out_by_hand() -> None:
    """[1, 2] and [3, 4] against the rows [5, 6], [7, 8], [9, 10]: 5 + 12, 7 + 16, 9 + 20; 15 + 24, …"""
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    weight = torch.tensor([[5.0, 6.0], [7.0, 8.0], [9.0, 10.0]], requires_grad=True)
    out = product(x, weight)
    assert out.tolist() == [[17, 23, 29], [39, 53, 67]]
    (out * torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])).sum().backward()
    assert x.grad is not None and weight.grad is not None
    assert x.grad.tolist() == [[5, 6], [18, 20]]  # row 0 of the weight, and twice row 2
    assert weight.grad.tolist() == [[1, 2], [0, 0], [6, 8]]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 6), (2, 3, 6), (0, 6), (2, 1, 6)])
def test_layer_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], bias: bool
) -> None:
    plain, fast = pair(bias)
    seen = calls(monkeypatch)
    results = []
    for layer in (plain, fast):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
        out = layer(x)
        wanted = [x, *layer.parameters()]
        results.append([out, *torch.autograd.grad((out**3).sum(), wanted)])
    assert len(seen) == (3 if shape[0] else 0)  # forward, and both gradients
    for one, two in zip(*results, strict=True):
        assert one.shape == two.shape and torch.allclose(one, two, rtol=1e-5, atol=1e-5)


def test_rows_that_do_not_lie_together() -> None:
    plain, fast = pair()
    x = torch.randn(6, 4, 3).transpose(0, 2)
    assert torch.allclose(plain(x), fast(x), atol=1e-6)


def test_second_derivatives() -> None:
    results = []
    for layer in pair():
        x = torch.linspace(-1, 1, 18).view(3, 6)
        (first,) = torch.autograd.grad((layer(x).tanh() ** 2).sum(), layer.weight, create_graph=True)
        results.append(torch.autograd.grad((first**2).sum(), layer.weight)[0])
    assert results[0].abs().max() > 0.1
    assert torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = pair()
    seen = calls(monkeypatch)
    x = torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), plain(x))
    for dtype in (torch.bfloat16, torch.float64):
        assert torch.equal(
            copy.deepcopy(fast).to(dtype)(x.to(dtype)), copy.deepcopy(plain).to(dtype)(x.to(dtype))
        )
    monkeypatch.setattr(products, "WORTH", WORTH)
    assert torch.equal(fast(x), plain(x)) and seen == []
    rows = WORTH // 30
    assert not seen and fast(torch.randn(rows, 6)).shape == (rows, 5) and not seen  # one row too few
    assert fast(torch.randn(rows + 1, 6)).shape == (rows + 1, 5) and seen == [(rows + 1, 6)]


def test_models_are_changed_only_where_it_pays(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    make_tiny(SMALL, TEXTS, 0, tmp_path)
    fast, tokenizer = load_model(tmp_path)
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    plain, _ = load_model(tmp_path)
    assert not any(isinstance(m, Linear) for m in plain.modules())
    linear = [name for name, m in fast.named_modules() if isinstance(m, Linear)]
    assert len(linear) == 15  # seven in each of two blocks, and the head
    ids = torch.tensor([tokenizer("Who wrote the second well?")["input_ids"]])
    assert torch.allclose(fast(ids).logits, plain(ids).logits, atol=1e-5)
    copied = copy.deepcopy(fast)  # the frozen reference must not follow the policy
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.mul_(1.5)
    assert torch.allclose(copied(ids).logits, plain(ids).logits, atol=1e-5)
    adapted = add_lora(copied, LoraConfig())
    assert sum("lora_A" in name for name, _ in adapted.named_parameters()) == 14


def test_who_it_pays_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    answers = {}
    for maker in ("vendor_id : AuthenticAMD", "vendor_id : GenuineIntel"):
        for capability in ("AVX512", "AVX2"):
            monkeypatch.setattr(products, "_maker", lambda maker=maker: maker)
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
            onednn_is_faster.cache_clear()
            answers[maker[-5:], capability] = onednn_is_faster()
    onednn_is_faster.cache_clear()
    assert [key for key, yes in answers.items() if yes] == [("icAMD", "AVX512")]
