"""Training the upper blocks of a decoder alone: what the lower ones give is computed once for all epochs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dareu.data.render import Encoded
from dareu.models.layers import activations, find_blocks
from dareu.models.logprobs import length_batches, response_logprobs, to_batch, vocabulary_of
from dareu.models.passes import evaluating

MOST_MIB = 1024


def blocks_below(share: float, count: int) -> int:
    """How many of `count` blocks lie in the lowest `share` of them, in [0, 1); one at least lies above."""
    return min(round(share * count), count - 1)


def first_block(model: Any, share: float) -> int:
    """`blocks_below` of the model's blocks."""
    return blocks_below(share, len(find_blocks(model)[1]))


def states_bytes(tokens: int, width: int, itemsize: int) -> int:
    """Bytes of what is kept of so many tokens; 0 where it would be more than `MOST_MIB`, for then nothing is kept."""
    size = tokens * width * itemsize
    return size if size <= MOST_MIB * 2**20 else 0


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
    `MOST_MIB`, activations are checkpointed (their second pass would not know its rows), or the model does not allow
    it (`begins_at`); the lower blocks then keep nothing for a backward pass. Either way dropout is off below `first`.
    The parameters stay frozen afterwards.
    """
    blocks = find_blocks(model)[1]
    for parameter in blocks[:first].parameters():
        parameter.requires_grad_(False)
    if not first:
        yield
        return
    width = model.config.get_text_config().hidden_size
    kept_bytes = states_bytes(sum(map(len, rows)), width, model.dtype.itemsize)
    checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    if checkpointed or not kept_bytes or not begins_at(model, max(rows, key=len), first, pad_id):
        with forwards(_without_dropout(model, first)):
            yield
        return
    states = states_below(model, rows, first, pad_id, batch_size)
    # Of rows that differ in nothing but pads at the end the longest serves all: a token sees none after it.
    kept: dict[tuple[int, ...], Tensor] = {}
    for row, own in sorted(zip(rows, states, strict=True), key=lambda pair: len(pair[0])):
        kept[_stripped([*row.prompt_ids, *row.response_ids], pad_id)] = own

    def fill(ids: Tensor, given: Tensor) -> Tensor:
        filled = torch.zeros_like(given)
        for row, tokens in enumerate(ids.tolist()):
            own = kept[_stripped(tokens, pad_id)]
            length = min(len(own), filled.size(1))
            filled[row, :length] = own[:length].to(filled)
        return filled

    with _beginning_at(model, first, fill, lambda: blocks[first].training):
        yield


def begins_at(model: Any, row: Encoded, first: int, pad_id: int) -> bool:
    """Whether a pass over the row that begins at block `first`, with what enters it in a whole pass, gives the same
    log-probabilities.

    Not where blocks hand on more than hidden states: tuples, keys and values that later blocks share (Gemma 3n).
    """
    blocks, batch = find_blocks(model)[1], to_batch([row], pad_id, model.device)
    entered: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered.append(inputs[0] if inputs else named["hidden_states"])

    def fill(ids: Tensor, given: Tensor) -> Tensor:
        if given.shape != entered[0].shape:  # the first of a tuple was taken of what is none
            raise ValueError
        return entered[0]

    with evaluating(model):
        handle = blocks[first].register_forward_pre_hook(note, with_kwargs=True)
        try:
            whole, _ = response_logprobs(model, batch)
        finally:
            handle.remove()
        if entered[0].dim() != 3:
            return False
        try:
            with _beginning_at(model, first, fill, lambda: True):
                alone, _ = response_logprobs(model, batch)
        except Exception:  # whatever a model raises that misses what its lower blocks leave
            return False
    return torch.allclose(alone, whole, rtol=1e-3, atol=1e-3)


@contextmanager
def _beginning_at(
    model: Any, first: int, fill: Callable[[Tensor, Tensor], Tensor], now: Callable[[], bool]
) -> Iterator[None]:
    """Within it, whenever `now`, a pass begins at block `first`, with `fill(token ids (B, T), what came (B, T, d))`."""
    blocks = find_blocks(model)[1]
    read: list[Tensor] = []  # the token ids of the pass that is under way

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read[:] = inputs[:1]

    def put(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not now():
            return None
        filled = fill(read[0], inputs[0] if inputs else named["hidden_states"])
        return ((filled, *inputs[1:]), named) if inputs else ((), named | {"hidden_states": filled})

    handles = [
        model.get_input_embeddings().register_forward_pre_hook(note),
        blocks[first].register_forward_pre_hook(put, with_kwargs=True),
    ]
    try:
        with forwards({block: passed_over(block, now) for block in blocks[:first]}):
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def forwards(new: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Within it modules have another `forward`."""
    own = {module: module.__dict__["forward"] for module in new if "forward" in module.__dict__}
    for module, forward in new.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in new:
            del module.forward
        for module, forward in own.items():
            module.forward = forward


def passed_over(block: nn.Module, now: Callable[[], bool]) -> Callable[..., Any]:
    """The block's `forward`, which gives back what it gets whenever `now`."""
    whole = block.forward

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return hidden_states if now() else whole(hidden_states, *args, **kwargs)

    return forward


def _without_dropout(model: Any, first: int) -> dict[nn.Module, Callable[..., Any]]:
    """`forward` of the blocks below `first`, and of dropout outside of all blocks, as in evaluation."""
    blocks = find_blocks(model)[1]
    inside = {module for block in blocks for module in block.modules()}
    outside = [m for m in model.modules() if isinstance(m, nn.Dropout) and m not in inside]
    return {block: _as_evaluated(block) for block in blocks[:first]} | {m: _same for m in outside}


def _as_evaluated(block: nn.Module) -> Callable[..., Any]:
    whole = block.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with evaluating(block):
            return whole(*args, **kwargs)

    return forward


def _same(states: Tensor) -> Tensor:
    return states


def _stripped(ids: Sequence[int], pad_id: int) -> tuple[int, ...]:
    """`ids` without the pads at their end, and without an ending that is the pad token too."""
    count = len(ids)
    while count and ids[count - 1] == pad_id:
        count -= 1
    return tuple(ids[:count])
