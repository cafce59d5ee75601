"""States of another model stand in after one block at a time, at the tokens of each row that predict counted ones.

What lies before those tokens is the model's own, whatever stands in, and what lies below the block is not read there:
the beginnings of the rows are read once for all blocks, and each pass goes on from its block over the patched tokens.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dareu.models.layers import find_blocks, patched_block
from dareu.models.logprobs import head_at, response_logits
from dareu.models.passes import evaluating, padded
from dareu.models.shared_prompts import kept, read_prompts, takes_positions
from dareu.models.upper_blocks import forwards, passed_over

Logits = tuple[Tensor, Tensor, Tensor]  # (N, V), targets (N) and the mask (B, T) with N true entries
Batch = Mapping[str, Tensor]


def patched_passes(model: Any, batch: Batch, states: Sequence[Tensor], short: bool) -> Iterator[Logits]:
    """For each block in turn, where `states` stand in after it: logits of the counted tokens, their targets and mask.

    Args:
        batch: right-padded; in each row the labels count tokens that follow each other.
        states: for each row (blocks, counted tokens, d), at the positions that predict the counted tokens.
        short: whether the model allows passes over the patched tokens alone (`goes_on_alone`).
    """
    if short and not where_predicted(batch)[:, 0].any():
        return _short_passes(model, batch, states)
    return whole_passes(model, batch, states)


def where_predicted(batch: Batch) -> Tensor:
    """(B, T), true at the positions before the counted tokens."""
    return torch.nn.functional.pad(batch["labels"][:, 1:] >= 0, (0, 1))


def whole_passes(
    model: Any, batch: Batch, states: Sequence[Tensor], only: Sequence[int] | None = None
) -> Iterator[Logits]:
    """As `patched_passes`, each a pass over all of the rows and through all blocks.

    `only`: some blocks.
    """
    where = where_predicted(batch)
    for index in range(len(states[0])) if only is None else only:
        with patched_block(model, index, where, torch.cat([own[index] for own in states])):
            yield response_logits(model, batch)


def _short_passes(
    model: Any, batch: Batch, states: Sequence[Tensor], only: Sequence[int] | None = None
) -> Iterator[Logits]:
    where, device = where_predicted(batch), model.device
    places = [row.nonzero()[:, 0].tolist() for row in where]
    read = batch["input_ids"].tolist()
    before, cache = read_prompts(model, [ids[: at[0]] for ids, at in zip(read, places, strict=True)], 0)[1:]
    ids, mask = padded([ids[at[0] : at[-1] + 1] for ids, at in zip(read, places, strict=True)], 0, device)
    targets, keep, whole = (
        batch["labels"][:, 1:][where[:, :-1]],
        mask.bool(),
        torch.cat([before, mask], dim=1),
    )
    blocks = find_blocks(model)[1]
    for index in range(len(states[0])) if only is None else only:
        over = {block: passed_over(block, lambda: True) for block in blocks[: index + 1]}
        values = torch.cat([own[index] for own in states])
        with forwards(over), patched_block(model, index, keep, values), head_at(model, keep):
            output = model(
                input_ids=ids,
                attention_mask=whole,
                position_ids=(whole.cumsum(1) - 1)[:, before.size(1) :],
                past_key_values=copy.deepcopy(cache),  # a pass adds the keys of its own tokens
                use_cache=True,
            )
        yield kept(output.logits, keep), targets, keep


def goes_on_alone(model: Any, row: Batch, states: Sequence[Tensor]) -> bool:
    """Whether short passes over one row give what whole ones do: after the first and the last blocks, and between.

    Not where blocks hand on more than hidden states, the model takes no positions, or the row's first token predicts a
    counted one.
    """
    if not takes_positions(model) or where_predicted(row)[:, 0].any():
        return False
    last = len(states[0]) - 1
    some = sorted({0, last // 2, max(last - 1, 0), last})
    with evaluating(model):
        whole = [logits for logits, _, _ in whole_passes(model, row, states, some)]
        try:
            short = [logits for logits, _, _ in _short_passes(model, row, states, some)]
        except Exception:  # whatever a model raises that misses what its lower blocks leave
            return False
    # In 16 bits a pass of another shape rounds elsewhere: .13 nats on average after the first of SmolLM2's blocks in
    # bfloat16, where another block's states change them by 1 to 3.
    most = max(1e-3, 32 * torch.finfo(model.dtype).eps)
    return all(
        bool((a.float().log_softmax(-1) - b.float().log_softmax(-1)).abs().mean() < most)
        for a, b in zip(short, whole, strict=True)
    )
