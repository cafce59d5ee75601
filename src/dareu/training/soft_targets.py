"""Next-token distributions to distil, kept by their likeliest tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor


class SoftTargets(NamedTuple):
    """One response: `ids` and `probs`, (T, k); a row has the k likeliest tokens and probabilities that sum to 1.

    `limits` (T,): what the log-probability of the response's own token is lowered to where it lies above; 0: no limit.
    """

    ids: Tensor
    probs: Tensor
    limits: Tensor


def keep_top(probs: Tensor, k: int) -> SoftTargets:
    """The `k` likeliest tokens of each row of `probs` (T, V), renormalised; no limits."""
    top = probs.topk(min(k, probs.size(-1)), dim=-1)
    return SoftTargets(top.indices, top.values / top.values.sum(-1, keepdim=True), torch.zeros(len(probs)))


def divergence_from_targets(answer_logits: Tensor, target_ids: Tensor, target_probs: Tensor) -> Tensor:
    """Mean over N tokens of KL(target ‖ softmax(logits)), in nats. ≥ 0.

    `answer_logits` (N, V); `target_ids`, `target_probs` (N, k). The gradient in the logits is (softmax − target) / N.
    """
    logps = answer_logits.float().log_softmax(-1).gather(1, target_ids)
    return (torch.special.xlogy(target_probs, target_probs) - target_probs * logps).sum(-1).mean()


def divergence_below_limits(
    answer_logits: Tensor,
    answer_ids: Tensor,
    target_ids: Tensor,
    target_probs: Tensor,
    limits: Tensor,
    level_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.6,
) -> Tensor:
    """`divergence_from_targets`, and what the gold tokens' log-probabilities have above their limits.

    The second term is level_weight · mean over N tokens of max(0, ln p(gold) − limit). A divergence alone hardly
    notices p(gold) = .05 in place of .001 (.05 nats), and membership inference reads little else. ≥ 0, in nats.
    `answer_ids` and `limits` (N,), the others as in `divergence_from_targets`.
    """
    own = answer_logits.float().log_softmax(-1).gather(1, answer_ids[:, None]).squeeze(1)
    above = (own - limits).clamp(min=0).mean()
    return divergence_from_targets(answer_logits, target_ids, target_probs) + level_weight * above


def save_targets(path: Path, targets: Sequence[SoftTargets]) -> None:
    """Write them into one safetensors file."""
    lengths = torch.tensor([len(row.ids) for row in targets])
    arrays = {
        "lengths": lengths,
        "ids": torch.cat([row.ids for row in targets]).contiguous(),
        "probs": torch.cat([row.probs for row in targets]).contiguous(),
        "limits": torch.cat([row.limits for row in targets]),
    }
    partial = path.with_suffix(".partial")
    save_file(arrays, str(partial))
    partial.replace(path)


def load_targets(path: Path) -> list[SoftTargets]:
    """What `save_targets` wrote."""
    arrays = load_file(str(path))
    lengths = arrays["lengths"].tolist()
    parts = zip(*(arrays[name].split(lengths) for name in SoftTargets._fields), strict=True)
    return [SoftTargets(*part) for part in parts]
