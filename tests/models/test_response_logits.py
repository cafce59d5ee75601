"""Logits of the response positions alone: the numbers of the whole, without computing the rest."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models_fixture import loud
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from dareu.config import LoraConfig
from dareu.data.render import Encoded
from dareu.models.load import POLICY, add_lora, as_original, freeze_original
from dareu.models.logprobs import (
    IGNORE,
    completion_batch,
    completion_logits,
    completion_logprobs,
    head_at,
    logits_of_both,
    response_logits,
    response_logprobs,
    shift,
    to_batch,
    token_logprobs,
)

PAD = 2  # also the end-of-text token
ROWS = [Encoded([5, 6, 7], [8, 9, PAD]), Encoded([5], [7, PAD]), Encoded([6, 7, 8, 9], [5, 5, 6, 9, PAD])]
SHAPE: dict[str, Any] = {
    "vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": PAD,
}  # fmt: skip


def test_pads_are_masked_by_length_and_have_no_label() -> None:
    short = [Encoded([7, 8], [9, PAD]), Encoded([5], [PAD])]
    right = {name: values.tolist() for name, values in to_batch(short, PAD, "cpu").items()}
    assert right == {
        "input_ids": [[7, 8, 9, PAD], [5, PAD, PAD, PAD]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "labels": [
            [IGNORE, IGNORE, 9, PAD],
            [IGNORE, PAD, IGNORE, IGNORE],
        ],  # the real end is a label, the pads are not
    }
    left = {name: values.tolist() for name, values in to_batch(short, PAD, "cpu", "left").items()}
    assert left == {
        "input_ids": [[7, 8, 9, PAD], [PAD, PAD, 5, PAD]],
        "attention_mask": [[1, 1, 1, 1], [0, 0, 1, 1]],
        "labels": [[IGNORE, IGNORE, 9, PAD], [IGNORE, IGNORE, IGNORE, PAD]],
    }


def llama() -> Any:
    torch.manual_seed(0)
    return loud(LlamaForCausalLM(LlamaConfig(**SHAPE))).eval()


def capped() -> Any:
    """Its logits are 3·tanh(x / 3)."""
    torch.manual_seed(0)
    return loud(Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=3.0))).eval()


def scaled() -> Any:
    """Its logits are x / 4."""
    torch.manual_seed(0)
    return loud(GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0))).eval()


def whole(model: Any, batch: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", [llama, capped, scaled])
@pytest.mark.parametrize("side", ["left", "right"])
def test_values_and_gradients_are_those_of_all_logits(make: Any, side: str) -> None:
    model, batch = make(), to_batch(ROWS, PAD, "cpu", side)
    full = whole(model, batch)
    logits, targets, mask = response_logits(model, batch)
    assert logits.shape == (10, 31)  # 3 + 2 + 5 response tokens of 6 + 3 + 9
    assert targets.tolist() == [8, 9, PAD, 7, PAD, 5, 5, 6, 9, PAD]
    shifted, _, counted = shift(full, batch["labels"])
    assert torch.equal(mask, counted)
    assert torch.allclose(logits, shifted[counted], atol=1e-5)
    expected, _ = token_logprobs(full, batch["labels"])
    logps, mask = response_logprobs(model, batch)
    assert torch.equal(mask, counted) and torch.allclose(logps, expected, atol=1e-5)
    weight = torch.arange(logps.numel(), dtype=torch.float32).view_as(logps)  # no two positions alike
    want, got = gradients(model, (weight * expected).sum()), gradients(model, (weight * logps).sum())
    assert want.keys() == got.keys()
    for name, value in want.items():
        assert value.abs().max() > 1e-3, name
        assert torch.allclose(got[name], value, rtol=1e-3, atol=1e-3), name


def test_the_head_never_sees_prompts_or_pads() -> None:
    model, seen = llama(), []
    model.lm_head.register_forward_hook(lambda head, args, out: seen.append(tuple(args[0].shape)))
    response_logits(model, to_batch(ROWS, PAD, "cpu"))
    whole(model, to_batch(ROWS, PAD, "cpu"))
    assert seen == [(1, 10, 16), (3, 9, 16)]


def test_a_batch_without_a_response_has_no_logits() -> None:
    batch = to_batch(ROWS, PAD, "cpu")
    batch["labels"] = torch.full_like(batch["labels"], IGNORE)
    logits, targets, mask = response_logits(llama(), batch)
    assert logits.shape == (0, 31) and targets.shape == (0,) and not mask.any()
    assert response_logprobs(llama(), batch)[0].abs().sum() == 0


def test_a_model_whose_head_is_no_module() -> None:
    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = llama()

        def get_output_embeddings(self) -> None:
            return None

        def forward(self, **inputs: Any) -> Any:
            return SimpleNamespace(logits=self.inner(**inputs).logits)

    batch = to_batch(ROWS, PAD, "cpu", "left")
    logits, targets, _ = response_logits(Headless(), batch)
    expected, wanted, _ = response_logits(llama(), batch)
    assert torch.allclose(logits, expected, atol=1e-5) and torch.equal(targets, wanted)


def test_the_head_is_itself_again_afterwards_and_after_an_error() -> None:
    model, batch = llama(), to_batch(ROWS, PAD, "cpu")
    before = whole(model, batch)
    with pytest.raises(IndexError), head_at(model, torch.ones(3, 9, dtype=torch.bool)):
        model(input_ids=torch.tensor([[99]]))
    assert torch.equal(whole(model, batch), before)


def test_inside_a_wrapper_for_processes() -> None:
    """`module` is where DistributedDataParallel keeps the model."""

    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, **inputs: Any) -> Any:
            return self.module(**inputs)

    batch = to_batch(ROWS, PAD, "cpu")
    assert torch.equal(response_logits(Wrapper(llama()), batch)[0], response_logits(llama(), batch)[0])


def test_completions_at_a_temperature() -> None:
    """Two rows as rollouts come: prompts padded on the left, completions of three tokens on the right."""
    model = llama()
    ids = torch.tensor([[PAD, 5, 6, 8, 9, PAD], [5, 6, 7, 9, PAD, PAD]])
    attention = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    found = completion_logits(model, ids, attention, 3)
    logps, entropies = completion_logprobs(*found, 0.5, entropy_gradient=True)
    every = (model(input_ids=ids, attention_mask=attention).logits[:, 2:5] / 0.5).log_softmax(-1)
    mask = attention[:, 3:]
    assert found[2].tolist() == mask.bool().tolist()
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]  # the end counts, the pad after it does not
    assert torch.allclose(logps, every.gather(2, ids[:, 3:, None]).squeeze(2) * mask, atol=1e-5)
    assert torch.allclose(entropies, -(every.exp() * every).sum(-1) * mask, atol=1e-5)
    assert entropies.requires_grad
    assert not completion_logprobs(*found, 0.5)[1].requires_grad


def absolute() -> Any:
    """Its tokens know how many positions stand before them, pads included."""
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=31, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=PAD
    )
    return loud(GPT2LMHeadModel(shape)).eval()


@pytest.mark.parametrize("make", [llama, absolute])
def test_left_pads_of_a_prompt_change_nothing(make: Any) -> None:
    """A row alone, and the same beside a longer one, with four pads at its left and one at its right."""
    model = make()
    alone = completion_logits(model, torch.tensor([[5, 6, 8, 9]]), torch.ones(1, 4, dtype=torch.long), 2)
    ids = torch.tensor([[PAD, PAD, PAD, PAD, 5, 6, 8, 9, PAD], [7, 6, 5, 9, 8, 4, 5, 6, 7]])
    beside = completion_logits(model, ids, (ids != PAD).long(), 3)
    assert beside[1].tolist() == [8, 9, 5, 6, 7]
    assert beside[2].tolist() == [[True, True, False], [True, True, True]]
    assert torch.allclose(beside[0][:2], alone[0], atol=1e-5)
    batch, _ = completion_batch(ids[:1], (ids[:1] != PAD).long(), 3)
    assert batch["input_ids"].tolist() == [[5, 6, 8, 9]] and batch["labels"].tolist() == [
        [IGNORE, IGNORE, 8, 9]
    ]


@pytest.mark.parametrize(("more", "passes"), [(0, 1), (9, 2)])
def test_two_batches_from_one_pass(more: int, passes: int) -> None:
    """Values and gradients of two passes; one is made where the rows are of like length."""
    model = llama()
    one = to_batch([*ROWS, Encoded([5, 7], [9] * (7 + more))], PAD, "cpu")
    other = to_batch(ROWS[:2], PAD, "cpu") if more else to_batch(ROWS[1:], PAD, "cpu")
    wanted = [response_logits(model, batch) for batch in (one, other)]
    slopes = gradients(model, wanted[0][0].sum() + 2 * (wanted[1][0] ** 2).sum())
    seen: list[tuple[int, ...]] = []
    handle = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = logits_of_both(model, one, other)
    handle.remove()
    assert len(seen) == passes and (passes == 2 or seen == [(6, 9)])
    for (logits, targets, mask), (expected, answers, counted) in zip(found, wanted, strict=True):
        assert torch.allclose(logits, expected, atol=1e-5)
        assert torch.equal(targets, answers) and torch.equal(mask, counted)
    now = gradients(model, found[0][0].sum() + 2 * (found[1][0] ** 2).sum())
    assert now.keys() == slopes.keys()
    assert max(float((now[n] - slopes[n]).abs().max()) for n in now) < 1e-4 * max(
        float(s.abs().max()) for s in slopes.values()
    )


# --- adapters -----------------------------------------------------------------------------------------------------


def adapted(dtype: torch.dtype = torch.float32) -> Any:
    """A LoRA model whose adapter changes what it says."""
    model = add_lora(llama().to(dtype), LoraConfig(dropout=0.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if POLICY in name.split("."):
                parameter.copy_(
                    0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
                )
    return model.eval()


def test_the_frozen_original_by_way_of_the_policy() -> None:
    policy, batch = adapted(), to_batch(ROWS, PAD, "cpu")
    before, _, _ = response_logits(policy, batch)
    reference = freeze_original(policy)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if POLICY in name.split("."):
                parameter.mul_(2)
    now, _, _ = response_logits(policy, batch)
    with as_original(policy, reference) as original:
        then, _, _ = response_logits(original, batch)
    assert torch.allclose(then, before, atol=1e-5) and not torch.allclose(now, before, atol=0.1)
    assert now.requires_grad and not then.requires_grad
    assert torch.equal(response_logits(policy, batch)[0], now)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_leaving_casts_to_autocast_changes_no_number(dtype: torch.dtype) -> None:
    """Against the adapter layers' own cast; without autocast a base in bfloat16 still needs it."""
    ours, batch = adapted(dtype), to_batch(ROWS, PAD, "cpu")
    theirs, casts = copy.deepcopy(ours), 0
    for layer in theirs.modules():
        casts += layer.__dict__.pop("_cast_input_dtype", None) is not None
    assert casts == 14  # seven linear layers in each of two blocks
    for autocast in (True, False):
        results = []
        for model in (ours, theirs):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = -response_logprobs(model, batch)[0].sum()
            results.append((loss.detach(), gradients(model, loss)))
        (one, grads), (two, others) = results
        assert torch.equal(one, two) and grads.keys() == others.keys()
        assert all(torch.equal(grads[name], others[name]) for name in grads)
