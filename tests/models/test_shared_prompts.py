"""Likelihoods of responses that share a prompt: the numbers of reading each pair alone, from fewer tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models_fixture import loud
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dareu.config import LoraConfig
from dareu.data.render import Encoded
from dareu.models.load import add_lora
from dareu.models.logprobs import response_nll
from dareu.models.shared_prompts import shared_prompt_nll

PAD = 2  # also the end-of-text token
TOKENIZER: Any = SimpleNamespace(pad_token_id=PAD)
A, B = [5, 6, 7, 8, 9, 10], [11, 12]
PAIRS = [
    Encoded(A, [8, 9, PAD]),
    Encoded(B, [7, PAD]),
    Encoded(A, [PAD]),
    Encoded(A, [5, 5, 6, 9, PAD]),
    Encoded(B, [13, 14, 15, PAD]),
    Encoded([9], [5, PAD]),  # nobody shares its prompt
]


def llama() -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    return loud(LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, pad_token_id=PAD))).eval()


def absolute() -> Any:
    """Its positions are learnt vectors, so that a prompt that is padded at its left must be told where it stands."""
    torch.manual_seed(0)
    return loud(
        GPT2LMHeadModel(GPT2Config(vocab_size=31, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    ).eval()


def adapted() -> Any:
    return add_lora(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()


def tokens_read(model: Any) -> list[int]:
    """Tokens of each forward pass from now on."""
    read: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return read


@pytest.mark.parametrize("make", [llama, absolute, adapted])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_likelihoods_are_those_of_each_pair_alone(make: Any, batch_size: int) -> None:
    model = make()
    found = shared_prompt_nll(model, TOKENIZER, PAIRS, batch_size=batch_size)
    for pair, (total, count) in zip(PAIRS, found, strict=True):
        ((alone, tokens),) = response_nll(model, TOKENIZER, [pair], batch_size=1)
        assert count == tokens == len(pair.response_ids)
        assert total == pytest.approx(alone, abs=1e-4)
    assert len({round(total, 2) for total, _ in found}) == len(PAIRS)  # the model tells them apart


def test_a_shared_prompt_is_read_once() -> None:
    model = llama()
    read = tokens_read(model)
    shared_prompt_nll(model, TOKENIZER, [PAIRS[0], PAIRS[3]], batch_size=8)
    assert read == [
        6,
        2 * 4,
    ]  # the prompt, then two responses without their last token, which predicts nothing


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(PAIRS[:2], id="no prompt is shared"),
        pytest.param([Encoded([], [5, 6, PAD]), Encoded([], [7, PAD])], id="there is no prompt"),
    ],
)
def test_where_nothing_is_shared_pairs_are_read_whole(pairs: list[Encoded]) -> None:
    model = llama()
    assert shared_prompt_nll(model, TOKENIZER, pairs, batch_size=8) == response_nll(
        model, TOKENIZER, pairs, batch_size=8
    )
