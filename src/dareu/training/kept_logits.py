"""The original model's logits at rows that training comes back to, computed once where they fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dareu.data.render import Encoded
from dareu.models.logprobs import response_logits, to_batch

MOST_MIB = 256


def fit_in_memory(rows: Sequence[Encoded], vocabulary: int) -> bool:
    """Whether the logits of all response tokens take no more than `MOST_MIB` in float32."""
    return sum(len(row.response_ids) for row in rows) * vocabulary * 4 <= MOST_MIB * 2**20


class KeptLogits:
    """Logits (T, V) at the response tokens of each of `rows`, which are known by identity."""

    @torch.no_grad()
    def __init__(self, original: Any, rows: Sequence[Encoded], pad_id: int, batch_size: int) -> None:
        self._rows = rows  # as long as these live, nothing else has their identity
        self._found: dict[int, Tensor] = {}
        order = sorted(rows, key=len)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            logits, _, mask = response_logits(original, to_batch(part, pad_id, original.device))
            for row, own in zip(part, logits.split(mask.sum(1).tolist()), strict=True):
                self._found[id(row)] = own

    def at(self, rows: Sequence[Encoded]) -> Tensor:
        """Those of a batch, row after row: (N, V)."""
        return torch.cat([self._found[id(row)] for row in rows])
