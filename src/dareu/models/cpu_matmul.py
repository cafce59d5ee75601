"""Which arithmetic is slow on this CPU, and float32 products by oneDNN where torch calls a slower library for them.

torch leaves float32 products on x86 to MKL, which does not use the AVX-512 units of processors that are not Intel's.
oneDNN, which torch brings along and calls for bfloat16, does: about twice the speed at the size of a training batch.
It is float32 all the same; only the order of summation differs. Left out: what autocast or another type of weights
sends to oneDNN anyway, and small products, where a call costs more than it saves.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTH = 1 << 20  # multiplications; below this MKL is the faster of the two


@cache
def onednn_is_faster() -> bool:
    """Whether this is a CPU with AVX-512 that MKL treats as one without, and torch has oneDNN."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "intel" not in _maker().lower()


def _maker() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("vendor_id")), "")


def bfloat16_is_emulated() -> bool:
    """Whether this CPU has no AVX-512 or Arm instructions by which oneDNN multiplies in bfloat16."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and not supported()


def _call(x: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out


class _Product(torch.autograd.Function):
    """`x` (…, K) times the transpose of `weight` (N, K). Differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return _call(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        for_x, for_weight = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            product(grad, weight.t()) if for_x else None,
            product(rows.t(), x.flatten(0, -2).t()) if for_weight else None,
        )


def product(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear(x, weight)` by oneDNN where that is worth it: `x` (…, K) and `weight` (N, K), float32, on the CPU."""
    if x.numel() * weight.size(0) < WORTH:
        return F.linear(x, weight)
    if not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
        return _call(x.contiguous(), weight)
    out: Tensor = _Product.apply(x.contiguous(), weight)
    return out


class Linear(nn.Linear):
    """`nn.Linear` whose products are `product` wherever they are float32 on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.float32 and x.dim() > 1
        if not plain or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(x)
        out = product(x, self.weight)
        return out if self.bias is None else out + self.bias


def with_fast_products(model: Any) -> Any:
    """The model, its linear layers turned into `Linear` in place where oneDNN is the faster. The weights stay."""
    if onednn_is_faster():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear
    return model
