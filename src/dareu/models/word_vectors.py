"""A vector for each of some words: what a causal model makes of them, read by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


@torch.no_grad()
def word_vectors(model: Any, tokenizer: Any, words: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """Mean of the last hidden states over a word's tokens, (n, d), float64; pads are left out."""
    was_training = model.training
    model.eval()
    found = []
    for start in range(0, len(words), batch_size):
        rows = [
            tokenizer(word, add_special_tokens=False)["input_ids"]
            for word in words[start : start + batch_size]
        ]
        width = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        hidden = model(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states[-1]
        weight = mask.to(hidden).unsqueeze(-1)
        found.append(((hidden * weight).sum(1) / weight.sum(1).clamp(min=1)).double().cpu().numpy())
    model.train(was_training)
    return np.concatenate(found)
