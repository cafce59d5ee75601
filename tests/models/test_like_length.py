"""Passes over rows of like length: the same log-probabilities and gradients as one pass, fewer pads, no more calls than
pay.
"""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest
import torch
from ppo_fixture import with_lora
from transformers import LlamaConfig, LlamaForCausalLM

from dareu.data.render import Encoded
from dareu.models import logprobs
from dareu.models.layers import has_dropout, weights_of_a_block
from dareu.models.logprobs import answer_logprobs, response_logprobs, to_batch
from dareu.models.passes import like_length
from dareu.training.losses import nll

RNG = random.Random(5)
ROWS = [
    Encoded(
        [RNG.randrange(1, 20) for _ in range(RNG.randint(1, 12))], [RNG.randrange(1, 20) for _ in range(n)]
    )
    for n in (9, 1, 4, 14, 2, 2, 11, 5)
]
SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 20,
}


def tiny(**more: Any) -> Any:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **more)).double()
    return model.train()


def tokens(lengths: list[int], passes: list[list[int]]) -> int:
    return sum(max(lengths[i] for i in chunk) * len(chunk) for chunk in passes)


def test_passes_by_hand() -> None:
    """Lengths 10, 2, 9, 2: 40 tokens in one pass, 2 · 2 + 2 · 10 = 24 in two, 4 + 9 + 10 = 23 in three."""
    lengths = [10, 2, 9, 2]
    assert like_length(lengths, 20) == [[1, 3, 2, 0]]  # 16 tokens are no second pass's worth
    assert like_length(lengths, 10) == [[1, 3], [2, 0]]
    assert like_length(lengths, 0.5) == [[1, 3], [2], [0]]
    assert like_length([7], 1) == [[0]]


@pytest.mark.parametrize("call", [0.1, 3, 12, 40])
def test_no_other_passes_cost_less(call: float) -> None:
    lengths = [RNG.randint(1, 30) for _ in range(7)]
    order = sorted(lengths)
    costs = [
        sum(
            call + order[stop - 1] * (stop - start)
            for start, stop in zip((0, *cuts), (*cuts, 7), strict=True)
        )
        for count in range(7)
        for cuts in combinations(range(1, 7), count)
    ]
    found = like_length(lengths, call)
    assert sorted(i for chunk in found for i in chunk) == list(range(7))
    assert tokens(lengths, found) + call * len(found) == pytest.approx(min(costs))


@pytest.mark.parametrize("adapted", [False, True])
def test_loss_and_gradient_are_those_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch, adapted: bool
) -> None:
    model = with_lora(tiny()).double() if adapted else tiny()
    calls: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda m, given, o: calls.append(given[0].numel()))

    def learnt(loss: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole = nll(*response_logprobs(model, to_batch(ROWS, 0, "cpu")))
    expected = learnt(whole)
    assert calls == [len(ROWS) * max(map(len, ROWS))]
    calls.clear()
    monkeypatch.setattr(logprobs, "CALL", 10)
    monkeypatch.setattr(logprobs, "LARGE", 0)
    logps = answer_logprobs(model, ROWS, 0, "cpu")
    assert len(calls) > 2 and sum(map(len, ROWS)) <= sum(calls) < 0.8 * len(ROWS) * max(map(len, ROWS))
    assert len(logps) == sum(len(row.response_ids) for row in ROWS)
    loss = nll(logps, torch.ones_like(logps))
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    found = learnt(loss)
    assert len(found) == len(expected)
    assert all(
        torch.allclose(one, other, rtol=1e-4, atol=1e-7) for one, other in zip(found, expected, strict=True)
    )


def test_one_pass_where_another_costs_more_or_draws_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model, dropout of the model or an adapter, several processes."""
    calls: list[int] = []

    def passes(model: Any) -> int:
        calls.clear()
        handle = model.get_input_embeddings().register_forward_hook(lambda *given: calls.append(1))
        answer_logprobs(model, ROWS, 0, "cpu")
        handle.remove()
        return len(calls)

    monkeypatch.setattr(logprobs, "CALL", 1)
    assert passes(tiny()) == 1
    monkeypatch.setattr(logprobs, "LARGE", 0)
    assert passes(tiny()) > 1 and not has_dropout(tiny())
    assert passes(tiny(attention_dropout=0.1)) == 1
    assert passes(with_lora(tiny(), 0.1).train()) == 1 and passes(with_lora(tiny(), 0.0).train()) > 1
    monkeypatch.setattr(logprobs, "world_size", lambda: 2)
    assert passes(tiny()) == 1


def test_weights_of_a_block() -> None:
    """Four matrices of 16 × 16, three of 16 × 32 and two norms; the last norm and the head for both blocks."""
    assert weights_of_a_block(tiny()) == 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16 + (16 + 16 * 20) // 2
