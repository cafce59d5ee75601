"""From attribution scores to dense rewards: transform, granularity, prefix mean (DareU, Lu et al. 2026, §4).

Pure functions. `scores` are (B, T): entry t is how far the response's first t+1 tokens are attributable to
the forget owners, in [0, 1]. `mask` is (B, T), 1 on response tokens, right-padded."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dareu.attribution.base import Attributor, class_count, token_ends
from dareu.attribution.name_masking import NameMasker
from dareu.attribution.score import owner_index

Granularity = Literal["token", "slices", "sequence"]


def log_transform(scores: Tensor, scale: float = 1.05, epsilon: float = 1e-4) -> Tensor:
    """χ(b) = clip(ln(1 − clip(b, ε, 1−ε)) / C_seg, −1, 0): the paper's. Range [−1, 0], 0 is unattributable.

    Saturates at −1 from b = 1 − e^(−C_seg) on (.65 for 1.05).
    """
    return (torch.log1p(-scores.clamp(epsilon, 1 - epsilon)) / scale).clamp(-1.0, 0.0)


def log_odds_transform(scores: Tensor, scale: float = 1.05, epsilon: float = 1e-4) -> Tensor:
    """Log-odds, −1 at b ≥ 1−ε and 0 at b ≤ ε, straight in the logit between: no flat part below 1−ε.

    `scale` is not used: the range follows from ε. Range [−1, 0].
    """
    limit = math.log((1 - epsilon) / epsilon)
    # The last clamp takes away rounding, and the infinity of an ε that is lost beside 1 in single precision.
    return (-(torch.logit(scores, eps=epsilon) + limit) / (2 * limit)).clamp(-1.0, 0.0)


def linear_transform(scores: Tensor, scale: float = 1.05, epsilon: float = 1e-4) -> Tensor:
    """−b. Range [−1, 0]."""
    return -scores.clamp(0.0, 1.0)


TRANSFORMS = {"log": log_transform, "log_odds": log_odds_transform, "linear": linear_transform}


def saturated_share(scores: Tensor, mask: Tensor, scale: float = 1.05) -> Tensor:
    """Share of response tokens on the flat part of the log transform, b ≥ 1 − e^(−C_seg). Range [0, 1]."""
    flat = (scores >= 1 - math.exp(-scale)).float() * mask
    return flat.sum() / mask.sum().clamp(min=1)


def score_floor(prior: float, times: float, transform: str = "log", scale: float = 1.05) -> float:
    """Below which a score counts no more: `times` the `prior`, the score of an empty text. In [0, 1].

    With many forget owners `prior` is high, and a multiple of it would lie where the log transform is flat (from
    1 − e^(−C_seg) on), so that every difference were 0: there it is max(`prior`, 1 − e^(−C_seg/4)) at most.
    """
    room = max(prior, 1 - math.exp(-scale / 4)) if transform == "log" else 1.0
    return min(1.0, times * prior, room)


def slice_scores(
    scores: Tensor, mask: Tensor, granularity: Granularity = "token", slices: int = 15
) -> Tensor:
    """DA(i, y[:⌈t/κ⌉·κ]): every token reads the score at the end of its slice, κ = ⌈T/k⌉ (B, T).

    `token` is κ = 1, `sequence` κ = T; T is each response's own length, so the last slice may be shorter.
    """
    if granularity == "token":
        return scores
    lengths = mask.sum(1, keepdim=True).clamp(min=1).long()
    kappa = lengths if granularity == "sequence" else (lengths + slices - 1) // slices
    positions = torch.arange(scores.size(1), device=scores.device).unsqueeze(0)  # the paper's t, minus 1
    ends = ((positions // kappa + 1) * kappa).minimum(lengths) - 1
    return scores.gather(1, ends.clamp(0, scores.size(1) - 1))


def prefix_mean(values: Tensor, mask: Tensor) -> Tensor:
    """mean_{t' ≤ t} of `values` (B, T): token t is scored by everything up to and including itself."""
    counts = mask.cumsum(1).clamp(min=1)
    return (values * mask).cumsum(1) / counts * mask


def differences(values: Tensor, mask: Tensor, start: float = 0.0) -> Tensor:
    """v_t − v_{t−1}, with v_0 = `start`: each token answers for the step that it makes, (B, T).

    Potential-based shaping (Ng et al. 1999): the sum over a response is its last value less `start`, so nothing is
    gained or lost by splitting it; but tokens after the one that gave the owner away are no longer blamed for it.
    `start` is the value of no text at all: with 0 every first token is blamed for the score of no evidence.
    """
    before = torch.cat([torch.full_like(values[:, :1], start), values[:, :-1]], 1)
    return (values - before) * mask


def attribution_reward(
    scores: Tensor,
    mask: Tensor,
    transform: str = "log",
    scale: float = 1.05,
    epsilon: float = 1e-4,
    granularity: Granularity = "token",
    slices: int = 15,
    mean_over_prefix: bool = True,
    credit: Literal["level", "difference"] = "level",
    prior: float = 0.0,
) -> Tensor:
    """The dense reward before the KL term, (B, T), 0 outside the mask: in [−1, 0], differences in [−1, 1].

    `prior` is the score of an empty text, where differences start.
    """
    mask = mask.to(scores.dtype)
    chi = TRANSFORMS[transform](slice_scores(scores, mask, granularity, slices), scale, epsilon)
    level = prefix_mean(chi, mask) if mean_over_prefix else chi * mask
    if credit == "level":
        return level
    start = TRANSFORMS[transform](torch.tensor(float(prior)), scale, epsilon)
    return differences(level, mask, float(start))


class AttributionScorer:
    """Σ_{j∈F} p(j|prefix) or p(query's owner|prefix) for every token of every rollout, and p(nobody|prefix).

    `masker` is what each response is read through, None reads it whole. With `second` it is read twice, and the
    higher of two numbers counts: what one reading takes for somebody else's may be the forget owner's in the other.
    """

    def __init__(
        self,
        attributor: Attributor,
        tokenizer: Any,
        forget_owners: Sequence[str],
        target: str,
        masker: NameMasker | None = None,
        second: NameMasker | None = None,
    ) -> None:
        self.attributor, self.tokenizer, self.target = attributor, tokenizer, target
        self.readers = [masker] if second is None else [masker, second]
        self.owners = list(attributor.owners)
        self.forget = owner_index(self.owners, forget_owners)
        self.prior = (len(self.forget) if target == "forget_set" else 1) / class_count(attributor)
        shares = getattr(attributor, "shares_tokenizer", None)
        self.on_ids = bool(shares and shares(tokenizer))

    def __call__(
        self, ids: Tensor, mask: Tensor, owners: Sequence[str], queries: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        read = [self._read(ids, mask, owners, queries, masker) for masker in self.readers]
        scores, nobody = (torch.stack(one).amax(0) for one in zip(*read, strict=True))
        return scores * mask, nobody * mask

    def _read(
        self,
        ids: Tensor,
        mask: Tensor,
        owners: Sequence[str],
        queries: Sequence[str],
        masker: NameMasker | None,
    ) -> tuple[Tensor, Tensor]:
        probabilities = self._prefixes(ids, mask, queries, masker)
        if self.target == "forget_set":
            scores = probabilities[..., self.forget].sum(-1)
        else:
            index = torch.tensor(owner_index(self.owners, owners), device=ids.device)
            scores = probabilities.gather(2, index.view(-1, 1, 1).expand(-1, ids.size(1), 1)).squeeze(2)
        return scores, probabilities[..., -1] if self.attributor.nobody else torch.zeros_like(scores)

    def _prefixes(
        self, ids: Tensor, mask: Tensor, queries: Sequence[str], masker: NameMasker | None
    ) -> Tensor:
        if self.on_ids and masker is None:
            return self.attributor.prefix_probabilities_ids(ids, mask).to(ids.device)  # type: ignore[attr-defined]
        rows = [r[m.bool()].tolist() for r, m in zip(ids, mask, strict=True)]
        cut = [token_ends(self.tokenizer, row) for row in rows]
        if masker is not None:
            cut = [_masked(masker, query, *one) for query, one in zip(queries, cut, strict=True)]
        scored = self.attributor.prefix_probabilities([t for t, _ in cut], [e for _, e in cut])
        width = len(self.owners) + int(self.attributor.nobody)
        out = torch.zeros(ids.size(0), ids.size(1), width)
        for row, values in enumerate(scored):
            out[row, : len(values)] = torch.from_numpy(np.asarray(values, dtype=np.float32))
        return out.to(ids.device)


def _masked(masker: NameMasker, query: str, text: str, ends: Sequence[int]) -> tuple[str, list[int]]:
    masked, lengths = masker.mask(query, text)
    return masked, [lengths[end] for end in ends]
