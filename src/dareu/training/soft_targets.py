"""Next-token distributions to distil, kept by their likeliest tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class SoftTargets(NamedTuple):
    """One response: `ids` and `probs`, (T, k); a row has the k likeliest tokens and probabilities that sum to 1."""

    ids: Tensor
    probs: Tensor


def keep_top(probs: Tensor, k: int) -> SoftTargets:
    """The `k` likeliest tokens of each row of `probs` (T, V), renormalised."""
    top = probs.topk(min(k, probs.size(-1)), dim=-1)
    return SoftTargets(top.indices, top.values / top.values.sum(-1, keepdim=True))


def divergence_from_targets(answer_logits: Tensor, target_ids: Tensor, target_probs: Tensor) -> Tensor:
    """Mean over N tokens of KL(target ‖ softmax(logits)), in nats. ≥ 0.

    `answer_logits` (N, V); `target_ids`, `target_probs` (N, k). The gradient in the logits is (softmax − target) / N.
    """
    logps = answer_logits.float().log_softmax(-1).gather(1, target_ids)
    return (torch.special.xlogy(target_probs, target_probs) - target_probs * logps).sum(-1).mean()


def save_targets(path: Path, targets: Sequence[SoftTargets]) -> None:
    """Write them into one safetensors file."""
    lengths = torch.tensor([len(row.ids) for row in targets])
    arrays = {
        "lengths": lengths,
        "ids": torch.cat([row.ids for row in targets]).contiguous(),
        "probs": torch.cat([row.probs for row in targets]).contiguous(),
    }
    partial = path.with_suffix(".partial")
    save_file(arrays, str(partial))
    partial.replace(path)


def load_targets(path: Path) -> list[SoftTargets]:
    """What `save_targets` wrote."""
    arrays = load_file(str(path))
    lengths = arrays["lengths"].tolist()
    parts = zip(arrays["ids"].split(lengths), arrays["probs"].split(lengths), strict=True)
    return [SoftTargets(ids, probs) for ids, probs in parts]
