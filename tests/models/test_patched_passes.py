"""Patched passes over the patched tokens alone: the logits of whole passes, of a fraction of the tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures_fixture import KINDS, PAD, WIDTHS, other

from dareu.data.render import Encoded
from dareu.models.layers import find_blocks
from dareu.models.logprobs import IGNORE, to_batch
from dareu.models.patched_passes import goes_on_alone, patched_passes, where_predicted, whole_passes

ROWS = [
    Encoded([4, 6, 3, 11, 5, 7], [8, 8, 7, 12, 9]),
    Encoded([5, 6], [7, 8, 9]),
    Encoded([2, 1], [1, 3, 10, 9]),
]
SPANS = [(1, 4), (0, 2), (1, 3)]  # of the responses
BLOCKS, WIDTH = 4, 16
RECURRENT = ("mamba", "x_proj"), {"hidden_size": 16, "num_hidden_layers": 4, "state_size": 4}


def batch_of(rows: list[Encoded], spans: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    batch = to_batch(rows, PAD, "cpu")
    labels = torch.full_like(batch["labels"], IGNORE)
    for i, (row, (start, stop)) in enumerate(zip(rows, spans, strict=True)):
        inside = slice(len(row.prompt_ids) + start, len(row.prompt_ids) + stop)
        labels[i, inside] = batch["input_ids"][i, inside]
    return batch | {"labels": labels}


def states_for(spans: list[tuple[int, int]]) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(BLOCKS, stop - start, WIDTH, generator=draw) for start, stop in spans]


def model_of(kind: str) -> tuple[bool, Any]:
    if kind == "Llama":
        return True, other("llama", "q_proj", **WIDTHS, num_hidden_layers=4).eval()
    if kind == "recurrent":
        return False, other(*RECURRENT[0], **RECURRENT[1]).eval()
    alone, names, settings = KINDS[kind]
    return alone, other(*names, **settings).eval()


# States of another shape, four streams, fit into no pass.
@pytest.mark.parametrize("kind", ["Llama", "recurrent", *(kind for kind in KINDS if kind != "four streams")])
@torch.no_grad()
def test_logits_are_those_of_whole_passes(kind: str) -> None:
    alone, model = model_of(kind)
    batch, states = batch_of(ROWS, SPANS), states_for(SPANS)
    whole = list(whole_passes(model, batch, states))
    row = {name: values[:1] for name, values in batch.items()}
    assert goes_on_alone(model, row, states[:1]) is alone
    found = list(patched_passes(model, batch, states, alone))
    assert len(found) == len(whole) == BLOCKS
    for (logits, targets, mask), (expected, wanted, _) in zip(found, whole, strict=True):
        assert torch.allclose(logits, expected, atol=1e-4) and torch.equal(targets, wanted)
        assert mask.sum(1).tolist() == [stop - start for start, stop in SPANS]
    assert not torch.allclose(whole[0][0], whole[1][0], atol=1e-2)  # it matters where the states stand
    assert not any("forward" in block.__dict__ for block in find_blocks(model)[1])


@torch.no_grad()
def test_tokens_through_blocks() -> None:
    """The beginnings pass all four blocks once, 3 × 6 tokens with pads; 3 × 3 patched ones 3, 2, 1 and 0."""
    _, model = model_of("Llama")
    batch, states = batch_of(ROWS, SPANS), states_for(SPANS)
    read: list[int] = []
    for block in find_blocks(model)[1]:
        block.mlp.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[:2].numel()))
    list(patched_passes(model, batch, states, short=True))
    assert read == [3 * 6] * 4 + [3 * 3] * (3 + 2 + 1)
    read.clear()
    list(patched_passes(model, batch, states, short=False))
    assert read == [3 * 11] * 4 * 4


@torch.no_grad()
def test_a_row_that_counts_from_its_second_token_is_read_whole() -> None:
    _, model = model_of("Llama")
    rows, spans = [Encoded([5], [7, 8, 9]), ROWS[0]], [(0, 2), (1, 4)]
    batch, states = batch_of(rows, spans), states_for(spans)
    assert where_predicted(batch)[:, 0].tolist() == [True, False]
    assert not goes_on_alone(model, {name: values[:1] for name, values in batch.items()}, states[:1])
    for one, two in zip(
        patched_passes(model, batch, states, short=True), whole_passes(model, batch, states), strict=True
    ):
        assert torch.equal(one[0], two[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_short_passes_of_a_model_in_16_bits_are_taken(dtype: torch.dtype) -> None:
    """Its rounding differs with the shape of a pass, here by the pads of a row: no reason to read it whole."""
    wide = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = other("llama", "q_proj", **wide, num_hidden_layers=4).eval().to(dtype)
    rows = [Encoded([*range(14)] * 4, [*range(1, 15)] * 3), Encoded([3, 9, 5] * 10, [8, 2, 4, 11] * 5)]
    row = {name: values[1:] for name, values in batch_of(rows, [(2, 12), (2, 12)]).items()}
    states = [torch.randn(BLOCKS, 10, 64, generator=torch.Generator().manual_seed(3))]
    whole = [logits for logits, _, _ in whole_passes(model, row, states)]
    short = [logits for logits, _, _ in patched_passes(model, row, states, True)]
    wrong = [logits for logits, _, _ in whole_passes(model, row, [states[0].flip(0)])]

    def apart(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        return (one.float().log_softmax(-1) - two.float().log_softmax(-1)).abs()

    assert apart(whole[0], short[0]).max() > 1e-3  # else the case shows nothing
    assert (
        apart(whole[0], wrong[0]).mean() > 32 * torch.finfo(dtype).eps
    )  # states of other blocks are told apart
    assert goes_on_alone(model, row, states)
