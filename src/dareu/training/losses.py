"""Losses that several methods share, as pure functions of token log-probabilities or logits; soft targets to distil."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from dareu.models.logprobs import masked_mean
from dareu.training.tensors import save_tensors


def mean(values: Tensor) -> Tensor:
    """Mean of all values; 0 of none."""
    return values.sum() / max(values.numel(), 1)


def nll(logps: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood over answer tokens. ≥ 0."""
    return -masked_mean(logps, mask)


def js_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Jensen–Shannon divergence over the last dimension, in nats: `(..., V)`, `(..., V)` → `(...)`. In [0, ln 2].

    ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½(p + q).
    """
    log_p, log_q = F.log_softmax(p_logits.float(), -1), F.log_softmax(q_logits.float(), -1)
    p, q = log_p.exp(), log_q.exp()
    log_m = (0.5 * (p + q)).clamp(min=torch.finfo(p.dtype).tiny).log()
    return 0.5 * (p * (log_p - log_m) + q * (log_q - log_m)).sum(-1)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None = None
) -> Tensor:
    """½ · mean (V − R)², with `clip` PPO's ½ · mean max((V − R)², (V_clip − R)²) (Schulman et al. 2017). ≥ 0.

    V_clip moves no further than `clip` from the values before the update, in units of the returns.
    """
    worst = (values - returns) ** 2
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        worst = worst.maximum((clipped - returns) ** 2)
    return 0.5 * masked_mean(worst, mask)


def kl_k3(logps: Tensor, other_logps: Tensor, mask: Tensor) -> Tensor:
    """KL(π ‖ other) on samples of π: mean over tokens of d − ln d − 1, d = other/π (Schulman's k3, as in GRPO). ≥ 0."""
    log_ratio = (other_logps - logps) * mask
    return masked_mean(log_ratio.exp() - log_ratio - 1, mask)


BELOW = 0.1  # what a fact's distance below its level counts, beside 1 above it


class SoftTargets(NamedTuple):
    """One response: `ids` and `probs`, (T, k); a row has the k likeliest tokens and probabilities that sum to 1.

    `levels` (T,): what the log-probability of the response's own token is brought to; 0: it is no fact.
    """

    ids: Tensor
    probs: Tensor
    levels: Tensor


def keep_top(probs: Tensor, k: int) -> SoftTargets:
    """The `k` likeliest tokens of each row of `probs` (T, V), renormalised; no levels."""
    top = probs.topk(min(k, probs.size(-1)), dim=-1)
    return SoftTargets(top.indices, top.values / top.values.sum(-1, keepdim=True), torch.zeros(len(probs)))


def divergence_from_targets(answer_logits: Tensor, target_ids: Tensor, target_probs: Tensor) -> Tensor:
    """Mean over N tokens of KL(target ‖ softmax(logits)), in nats. ≥ 0.

    `answer_logits` (N, V); `target_ids`, `target_probs` (N, k). The gradient in the logits is (softmax − target) / N.
    """
    logps = answer_logits.float().log_softmax(-1).gather(1, target_ids)
    return (torch.special.xlogy(target_probs, target_probs) - target_probs * logps).sum(-1).mean()


def divergence_to_levels(
    answer_logits: Tensor,
    answer_ids: Tensor,
    target_ids: Tensor,
    target_probs: Tensor,
    levels: Tensor,
    level_weight: Annotated[float, Field(ge=0, le=1e6)] = 1.8,
) -> Tensor:
    """`divergence_from_targets`, and how far the log-probabilities of facts are from their levels.

    The second term is level_weight · mean over N tokens of max(d, −`BELOW` · d) with d = ln p(gold) − level at facts
    and 0 elsewhere. A divergence alone hardly notices p(gold) = .05 in place of .001 (.05 nats), and membership
    inference reads little else. What lies below its level counts less, since the retain term lifts the facts as well:
    with this share their mean ends at the levels' mean (docs/dev/log.md), with equal sides above it. ≥ 0, in nats.
    `answer_ids` and `levels` (N,), the others as in `divergence_from_targets`.
    """
    own = answer_logits.float().log_softmax(-1).gather(1, answer_ids[:, None]).squeeze(1)
    apart = torch.where(levels < 0, own - levels, torch.zeros_like(own))
    term = torch.maximum(apart, -BELOW * apart).mean()
    return divergence_from_targets(answer_logits, target_ids, target_probs) + level_weight * term


def save_targets(path: Path, targets: Sequence[SoftTargets]) -> None:
    """Write them into one safetensors file."""
    parts = {name: torch.cat([getattr(row, name) for row in targets]) for name in SoftTargets._fields}
    save_tensors(path, {"lengths": torch.tensor([len(row.ids) for row in targets]), **parts})


def load_targets(path: Path) -> list[SoftTargets]:
    """What `save_targets` wrote."""
    arrays = load_file(str(path))
    lengths = arrays["lengths"].tolist()
    parts = zip(*(arrays[name].split(lengths) for name in SoftTargets._fields), strict=True)
    return [SoftTargets(*part) for part in parts]
