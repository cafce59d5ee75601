"""KL divergence between next-token distributions, in little memory where the vocabulary is large."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Entries of a chunk: 16 MB in float32. What fits into one chunk is left to autograd, which is faster there.
CHUNK = 2**22


def kl_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p ‖ q) over the last dimension, in nats: `(..., V)`, `(..., V)` → `(...)`. Range [0, ∞).

    Differentiable in both. Where the logits are many and p carries no gradient, work and gradient are done in chunks:
    autograd would keep four tensors of the logits' size, this keeps none beside the logits and their gradient.
    """
    if q_logits.numel() <= CHUNK or p_logits.requires_grad:
        return _divergence(p_logits, q_logits)
    shape, size = q_logits.shape[:-1], q_logits.size(-1)
    divergence: Tensor = _Chunked.apply(p_logits.reshape(-1, size), q_logits.reshape(-1, size))  # type: ignore[no-untyped-call]
    return divergence.reshape(shape)


def _divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    p = F.log_softmax(p_logits.float(), dim=-1)
    q = F.log_softmax(q_logits.float(), dim=-1)
    return (p.exp() * (p - q)).sum(-1)


def _rows(size: int) -> int:
    return max(1, CHUNK // size)


class _Chunked(torch.autograd.Function):
    """(N, V), (N, V) → (N,). d KL(p ‖ q) / d q_logits = softmax(q) − softmax(p), by row."""

    @staticmethod
    def forward(ctx: Any, p_logits: Tensor, q_logits: Tensor) -> Tensor:
        ctx.save_for_backward(p_logits, q_logits)
        rows = _rows(q_logits.size(1))
        pairs = zip(p_logits.split(rows), q_logits.split(rows), strict=True)
        return torch.cat([_divergence(p, q) for p, q in pairs])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        p_logits, q_logits = ctx.saved_tensors
        gradient = torch.empty_like(q_logits)
        rows = _rows(q_logits.size(1))
        parts = (x.split(rows) for x in (p_logits, q_logits, gradient, upstream))
        for p, q, out, weight in zip(*parts, strict=True):
            change = F.softmax(q.float(), dim=-1) - F.softmax(p.float(), dim=-1)
            out.copy_(change * weight.unsqueeze(1))
        return None, gradient
