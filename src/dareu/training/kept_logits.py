"""What the original model says of rows that training comes back to, computed once: logits where they fit into memory,
log-probabilities always.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dareu.data.render import Encoded
from dareu.models.logprobs import by_batches, response_logits, response_logprobs

MOST_MIB = 256


def fit_in_memory(rows: Sequence[Encoded], vocabulary: int) -> bool:
    """Whether the logits of all response tokens take no more than `MOST_MIB` in float32."""
    return sum(len(row.response_ids) for row in rows) * vocabulary * 4 <= MOST_MIB * 2**20


def _logits(model: Any, batch: dict[str, Tensor]) -> Sequence[Tensor]:
    logits, _, mask = response_logits(model, batch)
    return logits.split(mask.sum(1).tolist())


def logprobs(model: Any, batch: dict[str, Tensor]) -> Sequence[Tensor]:
    """log p (T,) of each row's response tokens, for `KeptLogits`."""
    logps, mask = response_logprobs(model, batch)
    return logps[mask].split(mask.sum(1).tolist())


class KeptLogits:
    """What `read` gives at the T response tokens of each of `rows`, which are known by identity: logits (T, V)."""

    def __init__(
        self,
        original: Any,
        rows: Sequence[Encoded],
        pad_id: int,
        batch_size: int,
        read: Callable[[Any, dict[str, Tensor]], Sequence[Tensor]] = _logits,
    ) -> None:
        self._rows = rows  # as long as these live, nothing else has their identity
        kept = by_batches(original, pad_id, rows, batch_size, read)
        self._found = {id(row): logits for row, logits in zip(rows, kept, strict=True)}

    def at(self, rows: Sequence[Encoded]) -> Tensor:
        """Those of a batch, row after row: (N, V), or (N,) of log-probabilities."""
        return torch.cat([self._found[id(row)] for row in rows])
