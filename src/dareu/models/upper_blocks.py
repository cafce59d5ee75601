"""Training the upper blocks of a decoder alone: what the lower ones give is computed once for all epochs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dareu.data.render import Encoded
from dareu.models.layers import activations, find_blocks
from dareu.models.logprobs import length_batches, to_batch, vocabulary_of
from dareu.models.passes import evaluating

MOST_MIB = 1024


def first_block(model: Any, share: float) -> int:
    """How many of the model's blocks lie in the lowest `share` of them, in [0, 1); one at least lies above."""
    count = len(find_blocks(model)[1])
    return min(round(share * count), count - 1)


def states_below(
    model: Any, rows: Sequence[Encoded], first: int, pad_id: int, batch_size: int
) -> list[Tensor]:
    """What enters block `first` at each of the T tokens of each row, (T, d); no pass goes further."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    with evaluating(model):
        for chunk in length_batches(rows, batch_size, vocabulary_of(model)):
            batch = to_batch([rows[i] for i in chunk], pad_id, model.device)
            states = activations(model, model, first - 1, batch["input_ids"], batch["attention_mask"])
            for own, i in zip(states, chunk, strict=True):
                found[i] = own[: len(rows[i])].clone()
    return found


@contextmanager
def upper_blocks_alone(
    model: Any, rows: Sequence[Encoded], first: int, pad_id: int, batch_size: int
) -> Iterator[None]:
    """Within it the parameters of the blocks below `first` are frozen, and passes in training mode, over batches of
    `rows` that are padded at the right, begin at block `first`, with what enters it kept from one pass.

    Other passes, in evaluation mode, go through the whole model. So do all where what is kept would take more than
    `MOST_MIB`, activations are checkpointed (their second pass would not know its rows), or blocks give tuples. The
    blocks' own dropout is off below `first`. The parameters stay frozen afterwards.
    """
    blocks = find_blocks(model)[1]
    for parameter in blocks[:first].parameters():
        parameter.requires_grad_(False)
    size = sum(map(len, rows)) * model.config.get_text_config().hidden_size * model.dtype.itemsize
    if not first or size > MOST_MIB * 2**20 or getattr(model, "is_gradient_checkpointing", False):
        yield
        return
    tuples: list[bool] = []
    watch = blocks[0].register_forward_hook(lambda block, given, out: tuples.append(isinstance(out, tuple)))
    states = states_below(model, rows, first, pad_id, batch_size)
    watch.remove()
    if any(tuples):
        yield
        return
    # Of rows that differ in nothing but pads at the end the longest serves all: a token sees none after it.
    kept: dict[tuple[int, ...], Tensor] = {}
    for row, own in sorted(zip(rows, states, strict=True), key=lambda pair: len(pair[0])):
        kept[_stripped([*row.prompt_ids, *row.response_ids], pad_id)] = own
    read: list[Tensor] = []  # the token ids of the pass that is under way

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read[:] = inputs[:1]

    def put(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not module.training:
            return None
        own = [kept[_stripped(ids, pad_id)] for ids in read[0].tolist()]
        given = inputs[0] if inputs else named["hidden_states"]
        filled = torch.zeros_like(given)
        for row, states in enumerate(own):
            length = min(len(states), filled.size(1))
            filled[row, :length] = states[:length].to(filled)
        return ((filled, *inputs[1:]), named) if inputs else ((), named | {"hidden_states": filled})

    handles = [
        model.get_input_embeddings().register_forward_pre_hook(note),
        blocks[first].register_forward_pre_hook(put, with_kwargs=True),
    ]
    for block in blocks[:first]:
        block.forward = _passed_over(block)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for block in blocks[:first]:
            del block.forward


def _passed_over(block: nn.Module) -> Any:
    """The block's `forward`, which in training mode gives back what it gets."""
    whole = block.forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return hidden_states if block.training else whole(hidden_states, *args, **kwargs)

    return forward


def _stripped(ids: Sequence[int], pad_id: int) -> tuple[int, ...]:
    """`ids` without the pads at their end, and without an ending that is the pad token too."""
    count = len(ids)
    while count and ids[count - 1] == pad_id:
        count -= 1
    return tuple(ids[:count])
