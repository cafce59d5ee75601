"""Answers that cost less: ended rows leave the batch, and an adapter answers in its base's precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dareu.config import LoraConfig
from dareu.models import generate as generation
from dareu.models.generate import _responses
from dareu.models.load import ORIGINAL, POLICY, add_lora, freeze_original
from dareu.models.merge import adapter_in_base_precision

PAD, LENGTH = 15, 40
WIDTHS = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
LLAMA = ("llama", WIDTHS | {"num_hidden_layers": 2})
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4, "head_dim": 8}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 2, "linear_key_head_dim": 4, "linear_value_head_dim": 4,
}  # fmt: skip
KINDS = {
    "Llama": LLAMA,
    "windows": ("gemma3_text", WIDTHS | WINDOWS | {"num_hidden_layers": 2}),
    "learned positions": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "linear attention": ("qwen3_5_text", WIDTHS | LINEAR | {"num_hidden_layers": 2}),
}


class Tokenizer:
    """Token ids as their own text; 15 ends it."""

    eos_token_id = pad_token_id = PAD
    chat_template = None
    eos_token = "<end>"

    def decode(self, ids: list[int], **options: Any) -> str:
        return " ".join(map(str, ids))


def of_kind(kind: str, **settings: Any) -> Any:
    name, widths = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name, vocab_size=16, bos_token_id=0, eos_token_id=PAD, pad_token_id=PAD, **widths, **settings
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    """Twelve prompts of two to seven tokens, padded at the left."""
    torch.manual_seed(1)
    ids, mask = torch.randint(0, PAD, (12, 7)), torch.ones(12, 7, dtype=torch.long)
    for row in range(12):
        ids[row, : row % 6], mask[row, : row % 6] = PAD, 0
    return ids, mask


def answered(
    model: Any, compact: bool, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[list[Any], int]:
    """The answers to `prompts`, and how many rows went through the model in all its steps."""
    monkeypatch.setattr(generation, "COMPACT", 0 if compact else 2**60)
    rows: list[int] = []
    block = model.get_output_embeddings()
    handle = block.register_forward_pre_hook(lambda module, args: rows.append(args[0].shape[0]))
    try:
        with torch.no_grad():
            return _responses(model, Tokenizer(), *prompts(), LENGTH, **options), sum(rows)
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_have_ended_leave_the_batch_and_no_answer_changes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of_kind(kind)
    torch.manual_seed(2)
    drawn = (torch.rand(12, LENGTH), 8.0)
    plain, all_rows = answered(model, False, monkeypatch, drawn=drawn)
    compact, fewer = answered(model, True, monkeypatch, drawn=drawn)
    lengths = sorted(len(answer.ids) for answer in plain)
    assert lengths[0] < lengths[6] < lengths[-1]  # else the case shows nothing
    assert compact == plain
    assert fewer < 0.8 * all_rows


def test_greedy_answers_and_those_cut_by_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = of_kind("Llama")
    plain, _ = answered(model, False, monkeypatch)
    compact, _ = answered(model, True, monkeypatch)
    assert compact == plain
    assert {answer.finished for answer in plain} == {True, False}
    assert max(len(answer.ids) for answer in plain) == LENGTH


def test_transformers_own_sampling_keeps_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a row draws there depends on the rows beside it."""
    model = of_kind("Llama")
    found = []
    for compact in (False, True):
        torch.manual_seed(3)
        found.append(answered(model, compact, monkeypatch, do_sample=True, temperature=1.5, top_k=0))
    assert found[0] == found[1]


def test_of_several_processes_each_keeps_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = of_kind("learned positions")
    torch.manual_seed(2)
    drawn = (torch.rand(12, LENGTH), 8.0)
    _, all_rows = answered(model, False, monkeypatch, drawn=drawn)
    monkeypatch.setattr(generation, "world_size", lambda: 2)
    assert answered(model, True, monkeypatch, drawn=drawn)[1] == all_rows


def test_rows_that_end_at_their_first_token_or_after_one_of_several_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One row, the limit of one token, and a prompt that leaves room for one token are among the cases."""
    model = of_kind("Llama")
    for ends, length in ((list(range(16)), LENGTH), ([PAD, 3, 7], LENGTH), ([PAD, 3, 7], 1)):
        monkeypatch.setattr(generation, "end_ids", lambda *given, ends=ends: ends)
        for some in (slice(0, 12), slice(3, 4)):
            given = [one[some] for one in prompts()]
            found = []
            for compact in (0, 2**60):
                monkeypatch.setattr(generation, "COMPACT", compact)
                with torch.no_grad():
                    found.append(_responses(model, Tokenizer(), *given, length))
            assert found[0] == found[1]
            if len(ends) == 16:
                assert all(answer.ids == [] and answer.finished for answer in found[0])
            assert max(len(answer.ids) for answer in found[0]) <= length
    full = of_kind("Llama", max_position_embeddings=7)
    answers, _ = answered(full, True, monkeypatch)
    assert {len(answer.ids) + answer.finished for answer in answers} == {1}


def with_adapter(dtype: torch.dtype, **settings: Any) -> Any:
    model = add_lora(
        of_kind("Llama").to(dtype), LoraConfig(r=2, target_modules=["q_proj", "down_proj"], **settings)
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def matrices(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.data for n, p in model.named_parameters() if "lora_" in n}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_has_its_bases_precision_within_and_its_own_afterwards(
    dtype: torch.dtype, rslora: bool
) -> None:
    model = with_adapter(dtype, rslora=rslora)
    before = {name: weight.clone() for name, weight in matrices(model).items()}
    order = [id(weight) for weight in model.parameters()]
    assert {weight.dtype for weight in before.values()} == {torch.float32}
    with adapter_in_base_precision(model):
        inside = matrices(model)
        assert {weight.dtype for weight in inside.values()} == {dtype}
        assert all(torch.equal(weight, before[name].to(dtype)) for name, weight in inside.items())
    after = matrices(model)
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert [id(weight) for weight in model.parameters()] == order  # an optimizer holds the same


def test_a_frozen_original_beside_the_policy_is_back_too() -> None:
    model = freeze_original(with_adapter(torch.bfloat16))
    before = {
        name: (weight, weight.data.clone(), weight.requires_grad) for name, weight in model.named_parameters()
    }
    with pytest.raises(KeyError), adapter_in_base_precision(model):
        assert {w.dtype for n, w in model.named_parameters() if ORIGINAL in n} == {torch.bfloat16}
        raise KeyError
    for name, weight in model.named_parameters():
        own, data, wanted = before[name]
        assert weight is own and torch.equal(weight, data) and weight.requires_grad == wanted, name


def test_gradients_are_seen_afterwards_by_who_listened_before() -> None:
    """DDP averages gradients by hooks on the nodes that accumulate them, which a parameter loses with its type."""
    model, (ids, mask) = with_adapter(torch.bfloat16), prompts()
    seen: set[str] = set()
    nodes = {
        n: p.expand_as(p).grad_fn.next_functions[0][0] for n, p in model.named_parameters() if p.requires_grad
    }
    for name, node in nodes.items():
        node.register_hook(lambda *given, name=name: seen.add(name))
    with adapter_in_base_precision(model):
        pass
    model(input_ids=ids, attention_mask=mask).logits.float().sum().backward()
    assert seen == set(nodes) == set(matrices(model))


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [(torch.float32, {}), (torch.bfloat16, {"dora": True})],
    ids=["float32", "DoRA"],
)
def test_an_adapter_stays_as_it_is(dtype: torch.dtype, settings: dict[str, Any]) -> None:
    model = with_adapter(dtype, **settings)
    with adapter_in_base_precision(model):
        assert {weight.dtype for weight in matrices(model).values()} == {torch.float32}


def test_log_probabilities_in_the_bases_precision_are_near() -> None:
    """The difference is that of one more rounding to bfloat16; the adapter itself moves them by much more."""
    model, (ids, mask) = with_adapter(torch.bfloat16), prompts()

    @torch.no_grad()
    def logps() -> torch.Tensor:
        return model(input_ids=ids, attention_mask=mask).logits[:, -1].float().log_softmax(-1)

    own = logps()
    with adapter_in_base_precision(model):
        cast = logps()
    with model.disable_adapter():
        base = logps()
    assert model.active_adapter == POLICY
    assert (own - base).abs().mean() > 0.1
    assert (own - cast).abs().mean() < 0.1 * (own - base).abs().mean()
