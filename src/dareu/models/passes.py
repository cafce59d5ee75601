"""Passes through a model in evaluation: without dropout and gradients, in batches of rows of like length."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dareu.runs.ranks import share_out

T = TypeVar("T")


@contextmanager
def evaluating(model: Any) -> Iterator[Any]:
    """The model in evaluation mode and without gradients; afterwards its mode is what it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was_training)


def by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """The numbers of the rows in batches of `size`, the longest rows first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[i : i + size] for i in range(0, len(order), size)]


def like_length(lengths: Sequence[int], call: float) -> list[list[int]]:
    """The numbers of the rows in passes of rows of like length, the shortest rows first: the passes with the fewest
    tokens in all, pads included, where each costs `call` tokens more.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    # Of the shortest rows, 0 to n of them: (least cost, where the last pass begins).
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(order) + 1):
        width = lengths[order[stop - 1]]
        best.append(min((best[k][0] + call + width * (stop - k), k) for k in range(stop)))
    passes: list[list[int]] = []
    stop = len(order)
    while stop:
        start = best[stop][1]
        passes.insert(0, order[start:stop])
        stop = start
    return passes


def each(
    model: Any,
    batches: Sequence[Sequence[Any]],
    read: Callable[[Sequence[Any]], Sequence[T]],
    progress: str | None = None,
) -> list[T]:
    """What `read` gives for each row of a batch of row numbers, in the order of the numbers.

    The model is in evaluation mode; processes share the batches; `progress` labels a bar.
    """
    from dareu.models.progress import track

    with evaluating(model):
        shared = share_out(batches, read, lambda own: track(own, progress))
    pairs = [pair for part in zip(batches, shared, strict=True) for pair in zip(*part, strict=True)]
    return [value for _, value in sorted(pairs, key=lambda pair: pair[0])]


def padded(
    rows: Sequence[Sequence[int]], pad: int = 0, device: Any = "cpu", left: bool = False
) -> tuple[Tensor, Tensor]:
    """Token ids (B, T) and their mask (B, T), with pads at the right, or at the `left`."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids.to(device), mask.to(device)


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
