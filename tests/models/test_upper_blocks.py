"""Training the upper blocks alone: the same logits and gradients as passes through the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures_fixture import GPT2, KINDS, PAD, other
from ppo_fixture import with_lora
from transformers import LlamaConfig, LlamaForCausalLM

from dareu.data.render import Encoded
from dareu.methods.fresh_adapter import reset_adapter
from dareu.models import upper_blocks
from dareu.models.layers import find_blocks
from dareu.models.load import checkpoint_activations
from dareu.models.logprobs import response_logprobs, to_batch
from dareu.models.upper_blocks import first_block, upper_blocks_alone

ROWS = [
    Encoded([5, 6], [7, 8, 9]),
    Encoded([5], [9]),
    Encoded([4, 6, 3], [8, 8, 7, 9]),
    Encoded([5, 6], [7, 8]),  # the first without its ending
    Encoded([2], [1, 3, 9, 9]),
]


def adapted(blocks: int = 4) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 11}
    model = LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=blocks))
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.4)
    policy = with_lora(model)
    reset_adapter(policy, seed=1)
    for name, parameter in policy.named_parameters():  # what the upper blocks have learnt by now
        if "lora_B" in name and any(f"layers.{i}." in name for i in (2, 3)):
            torch.nn.init.normal_(parameter, std=0.1)
    return policy.train()


def trained(policy: Any, rows: list[Encoded]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Log-probabilities of a batch, and the gradients of their sum."""
    policy.zero_grad()
    logps, _ = response_logprobs(policy, to_batch(rows, PAD, "cpu"))
    logps.sum().backward()
    upper = [p for n, p in policy.named_parameters() if "lora_" in n and ("layers.2" in n or "layers.3" in n)]
    return logps.detach(), [p.grad.clone() for p in upper]


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4], [3, 2], [0], [4, 1]])
def test_logits_and_gradients_are_those_of_whole_passes(numbers: list[int]) -> None:
    policy, rows = adapted(), [ROWS[n] for n in numbers]
    logps, gradients = trained(policy, rows)
    with upper_blocks_alone(policy, ROWS, 2, PAD, batch_size=2):
        found, alone = trained(policy, rows)
    assert torch.allclose(found, logps, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(alone, gradients, strict=True))


def test_lower_blocks_are_passed_over_in_training_and_frozen() -> None:
    policy, calls = adapted(), []
    blocks = find_blocks(policy)[1]
    for number, block in enumerate(blocks):
        block.mlp.register_forward_hook(lambda m, i, o, number=number: calls.append(number))
    batch = to_batch(ROWS[:2], PAD, "cpu")
    whole = response_logprobs(policy.eval(), batch)[0]
    with upper_blocks_alone(policy, ROWS, 2, PAD, batch_size=8):
        calls.clear()
        response_logprobs(policy.train(), batch)
        assert calls == [2, 3]
        calls.clear()
        # An evaluation meanwhile asks other rows, through all blocks.
        assert torch.allclose(response_logprobs(policy.eval(), batch)[0], whole, atol=1e-6)
        response_logprobs(policy, to_batch([Encoded([1, 1], [2])], PAD, "cpu"))
        assert calls == [0, 1, 2, 3] * 2
    calls.clear()
    response_logprobs(policy.train(), batch)
    assert calls == [0, 1, 2, 3]
    flags = {n: p.requires_grad for n, p in policy.named_parameters() if "lora_" in n}
    assert all(flag == ("layers.2" in n or "layers.3" in n) for n, flag in flags.items())


def test_as_many_bytes_are_kept_as_the_estimate_counts() -> None:
    kept = upper_blocks.states_below(adapted(), ROWS, 2, PAD, batch_size=2)
    size = sum(own.numel() * own.element_size() for own in kept)
    assert size == upper_blocks.states_bytes(sum(map(len, ROWS)), 16, 4) == 23 * 16 * 4


def test_what_does_not_fit_in_memory_is_passed_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = adapted()
    logps, _ = trained(policy, ROWS)
    monkeypatch.setattr(upper_blocks, "MOST_MIB", 0)
    monkeypatch.setattr(upper_blocks, "states_below", lambda *a: pytest.fail("states were computed"))
    with upper_blocks_alone(policy, ROWS, 2, PAD, batch_size=8):
        assert torch.allclose(trained(policy, ROWS)[0], logps)


@pytest.mark.parametrize("kind", KINDS)
def test_other_architectures_give_the_logits_of_whole_passes(kind: str) -> None:
    """Where blocks hand on more than hidden states, passes go through all of them."""
    begins, names, settings = KINDS[kind]
    policy = other(*names, **settings)
    batch = to_batch(ROWS, PAD, "cpu")
    whole = response_logprobs(policy.eval(), batch)[0].detach()
    assert upper_blocks.begins_at(policy, ROWS[2], 2, PAD) is begins
    with upper_blocks_alone(policy, ROWS, 2, PAD, batch_size=2):
        assert torch.allclose(response_logprobs(policy.train(), batch)[0], whole, atol=1e-5)
    assert not any("forward" in block.__dict__ for block in find_blocks(policy)[1])


@pytest.mark.parametrize("why", ["memory", "checkpoints"])
def test_dropout_below_is_off_however_it_is_passed(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2 has dropout in its embedding and its blocks; checkpoints of activations may change no number."""

    def found(policy: Any) -> torch.Tensor:
        for block in find_blocks(policy)[1][2:]:
            for part in block.modules():
                if isinstance(part, torch.nn.Dropout):
                    part.p = 0.0
        with upper_blocks_alone(policy, ROWS, 2, PAD, batch_size=2):
            return response_logprobs(policy.train(), to_batch(ROWS, PAD, "cpu"))[0]

    kept, through = (other("gpt2", "c_attn", **GPT2, attn_pdrop=0.0) for _ in range(2))
    expected = found(kept)
    if why == "checkpoints":
        checkpoint_activations(through)
    else:
        monkeypatch.setattr(upper_blocks, "MOST_MIB", 0)
    monkeypatch.setattr(upper_blocks, "states_below", lambda *a: pytest.fail("states were computed"))
    logps = found(through)
    assert torch.allclose(logps, expected, atol=1e-5)
    logps.sum().backward()  # nothing of the lower blocks is kept for it, their input's gradient neither
    assert all(p.grad is None for block in find_blocks(through)[1][:2] for p in block.parameters())


def test_a_share_of_the_blocks() -> None:
    """Of four: none, two, and three of four, since one at least is trained."""
    assert [first_block(adapted(4), share) for share in (0.0, 0.5, 0.99)] == [0, 2, 3]
