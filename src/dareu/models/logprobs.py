"""Token log-probabilities: the one place where labels are shifted and masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dareu.data.render import Encoded, collate

IGNORE = -100


def shift(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Align predictions with the tokens they predict.

    `logits` (B, T, V), `labels` (B, T) with -100 where nothing counts. Returns logits (B, T-1, V), targets
    (B, T-1) with 0 in place of -100 (so that they may index), and the mask (B, T-1) of what counts.
    """
    targets = labels[:, 1:]
    mask = targets != IGNORE
    return logits[:, :-1], targets.masked_fill(~mask, 0), mask


def token_logprobs(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log p(label) for each position: `(B, T-1)` log-probabilities (0 where masked) and the `(B, T-1)` mask.

    Logits at masked positions are never read, whatever they hold.
    """
    logits, targets, mask = shift(logits, labels)
    logps = torch.zeros(mask.shape, device=logits.device)
    logps[mask] = -F.cross_entropy(logits[mask].float(), targets[mask], reduction="none")
    return logps, mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is true; 0 where it is true nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def kl_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p ‖ q) over the last dimension, in nats: `(..., V)`, `(..., V)` → `(...)`. Range [0, ∞)."""
    p = F.log_softmax(p_logits.float(), dim=-1)
    q = F.log_softmax(q_logits.float(), dim=-1)
    return (p.exp() * (p - q)).sum(-1)


def to_batch(rows: Sequence[Encoded], pad_id: int, device: Any, side: str = "right") -> dict[str, Tensor]:
    """`collate` as tensors on `device`."""
    return {k: torch.tensor(v, device=device) for k, v in collate(rows, pad_id, side).items()}


@torch.no_grad()
def response_nll(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Encoded],
    *,
    batch_size: int,
    progress: str | None = None,
    include_eos: bool = True,
) -> list[tuple[float, int]]:
    """Summed negative log-likelihood (nats) of each response and its number of tokens, in the order given.

    The end-of-text token counts as in training unless `include_eos` is False. Batches are formed by length.
    """
    from dareu.models.progress import track

    was_training = model.training
    model.eval()
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i]))
    result: list[tuple[float, int]] = [(0.0, 0)] * len(pairs)
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for chunk in track(chunks, progress):
        batch = to_batch([pairs[i] for i in chunk], tokenizer.pad_token_id, model.device)
        if not include_eos:
            for row, i in enumerate(chunk):
                batch["labels"][row, len(pairs[i]) - 1] = IGNORE
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        logps, mask = token_logprobs(logits, batch["labels"])
        for row, i in enumerate(chunk):
            result[i] = (-float(logps[row].sum()), int(mask[row].sum()))
    model.train(was_training)
    return result
