"""An attributor as a reward reads it: it scores every prefix of a rollout."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dareu.attribution.base import Attributor, class_count, token_ends
from dareu.attribution.name_masking import NameMasker
from dareu.attribution.score import owner_index


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
