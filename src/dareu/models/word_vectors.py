"""A vector for each of some words: what a causal model makes of them, read by themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dareu.models.passes import evaluating, padded


def word_vectors(model: Any, tokenizer: Any, words: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """Mean of the last hidden states over a word's tokens, (n, d), float64; pads are left out."""
    vectors = []
    with evaluating(model):
        for start in range(0, len(words), batch_size):
            some = words[start : start + batch_size]
            rows = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in some]
            ids, mask = padded(rows, tokenizer.pad_token_id, model.device)
            output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
            hidden = output.hidden_states[-1]
            weight = mask.to(hidden).unsqueeze(-1)
            vectors.append(((hidden * weight).sum(1) / weight.sum(1).clamp(min=1)).double().cpu().numpy())
    return np.concatenate(vectors)
