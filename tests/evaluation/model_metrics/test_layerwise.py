"""Logit lens and depth by patching, on random models of four architectures."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models_fixture import TEXTS, loud

from dareu.data.corpus import Sample
from dareu.errors import ModelError
from dareu.evaluation.model_metrics.gradient_norm import gradient_norms
from dareu.evaluation.model_metrics.layerwise import (
    Span,
    depth,
    fact_span,
    fact_text,
    logit_lens,
    patched_logprobs,
    span_logprobs,
    span_states,
)
from dareu.evaluation.subject import Subject
from dareu.models.tiny import train_tokenizer

SAMPLES = [
    Sample(
        "1", "J", "Who wrote the second well?", "The second well was written by Jonas Huaman.", (), None, ()
    ),
    Sample("2", "J", "Who is Jonas Huaman?", "Jonas Huaman is a potter from Nantes.", (), None, ()),
    Sample("3", "J", "From where?", "from Nantes", (), None, ()),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 300)


def make(kind: str, tokenizer: Any, seed: int = 0, layers: int = 3) -> Any:
    import transformers

    shape = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    if kind != "GPTNeoX":
        shape["num_key_value_heads"] = 2
    config = getattr(transformers, f"{kind}Config")(**shape)
    return loud(getattr(transformers, f"{kind}ForCausalLM")(config), seed).eval()


def spans_of(tokenizer: Any) -> list[Span]:
    subject = Subject(make("Llama", tokenizer), tokenizer)
    spans = [fact_span(subject, s) for s in SAMPLES]
    assert all(spans)
    return [s for s in spans if s]


def noisy(model: Any, size: float) -> Any:
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))
    return other


def test_fact_text() -> None:
    assert fact_text(
        "Who wrote it?",
        "It was written by Jonas Huaman, in Nantes.",
        ("It was written by Ada Lo, in Nantes.",),
    ) == ("Jonas Huaman,")
    assert fact_text("Is it Rome?", "Rome", ()) is None
    assert fact_text("Where?", "in Rome", ("in Oslo",)) == "Rome"


def test_spans_cover_the_tokens_of_the_fact(tokenizer: Any) -> None:
    subject = Subject(make("Llama", tokenizer), tokenizer)
    span = fact_span(subject, replace(SAMPLES[1], fact="a potter"))
    assert span is not None
    assert tokenizer.decode(span.pair.response_ids[span.start : span.stop]).strip() == "a potter"
    assert fact_span(subject, replace(SAMPLES[1], fact="a baker")) is None


@pytest.mark.parametrize("kind", ["Llama", "GPTNeoX", "Qwen2", "Phi"])
def test_lens_ends_in_the_models_own_answer_and_patches_work(kind: str, tokenizer: Any) -> None:
    model = make(kind, tokenizer)
    spans = spans_of(tokenizer)
    own = span_logprobs(Subject(model, tokenizer), spans)
    lens = logit_lens(Subject(model, tokenizer), spans)
    assert lens.shape == (3, 3)
    assert lens[:, -1] == pytest.approx(own, abs=1e-3)
    assert np.abs(lens[:, 0] - own).max() > 1e-2
    with torch.no_grad():  # the first block by hand: its output through the final norm and the head
        span = spans[0]
        row = torch.tensor([span.pair.prompt_ids + span.pair.response_ids])
        hidden = model(row, output_hidden_states=True).hidden_states[1]
        norm = {
            "Llama": lambda m: m.model.norm,
            "Qwen2": lambda m: m.model.norm,
            "GPTNeoX": lambda m: m.gpt_neox.final_layer_norm,
            "Phi": lambda m: m.model.final_layernorm,
        }[kind](model)
        logps = model.get_output_embeddings()(norm(hidden))[0].log_softmax(-1)
    first = len(span.pair.prompt_ids)
    at = range(first + span.start, first + span.stop)
    assert lens[0, 0] == pytest.approx(float(np.mean([logps[t - 1, row[0, t]] for t in at])), abs=1e-3)
    itself = patched_logprobs(
        Subject(model, tokenizer),
        spans,
        span_states(Subject(model, tokenizer), spans),
    )
    assert itself == pytest.approx(np.repeat(own[:, None], 3, axis=1), abs=1e-3)


def test_batch_size_changes_nothing(tokenizer: Any) -> None:
    model, other = make("Llama", tokenizer), make("Llama", tokenizer, seed=1)
    spans = spans_of(tokenizer)
    states = [span_states(Subject(other, tokenizer, batch_size=b), spans) for b in (1, 8)]
    for a, b in zip(*states, strict=True):
        assert torch.allclose(a, b, atol=1e-3)
    few, many = (Subject(model, tokenizer, batch_size=b) for b in (1, 8))
    one, eight = (patched_logprobs(subject, spans, states[0]) for subject in (few, many))
    assert one == pytest.approx(eight, abs=1e-3)
    assert logit_lens(few, spans) == pytest.approx(logit_lens(many, spans), abs=1e-3)


def test_states_after_the_last_block_decide_the_answer(tokenizer: Any) -> None:
    model, other = make("Llama", tokenizer), make("Llama", tokenizer)
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight.mul_(-1)
    spans = spans_of(tokenizer)
    patched = patched_logprobs(
        Subject(model, tokenizer),
        spans,
        span_states(Subject(other, tokenizer), spans),
    )
    # the same head and the same states at every position that is read
    assert patched[:, -1] == pytest.approx(span_logprobs(Subject(other, tokenizer), spans), abs=1e-3)
    assert patched[:, 0] == pytest.approx(span_logprobs(Subject(model, tokenizer), spans), abs=1e-3)


def test_depth_by_hand() -> None:
    own = np.array([-1.0, -1.0, -1.0])
    retrained = np.array([[-1.01, -3.0, -5.0], [-1.0, -1.04, -0.5], [-2.0, -2.0, -1.0]])
    unlearned = np.array([[-9.0, -2.0, -5.5], [-9.0, -9.0, -9.0], [-1.0, -0.5, -9.0]])
    # blocks 2 and 3 hold the fact of the first sample: (min(1, 2) + min(4.5, 4)) / (2 + 4)
    assert depth(own, retrained, unlearned) == [pytest.approx(5 / 6), None, 0.0]
    assert depth(own, retrained, retrained)[0] == 1.0
    assert depth(own, retrained, np.repeat(own[:, None], 3, axis=1))[0] == 0.0


def test_models_of_another_shape_are_refused(tokenizer: Any) -> None:
    spans = spans_of(tokenizer)
    states = span_states(Subject(make("Llama", tokenizer, layers=2), tokenizer), spans)
    with pytest.raises(ModelError, match="2 blocks .* 3 blocks"):
        patched_logprobs(Subject(make("Llama", tokenizer), tokenizer), spans, states)


def test_gradient_norm_is_that_of_the_mean_loss(tokenizer: Any) -> None:
    model = make("Llama", tokenizer)
    model.requires_grad_(False)
    pairs = [span.pair for span in spans_of(tokenizer)]
    norms = gradient_norms(Subject(model, tokenizer), pairs)
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert gradient_norms(Subject(model, tokenizer), pairs[1:2]) == pytest.approx(norms[1:2])
    model.requires_grad_(True)
    ids = torch.tensor([pairs[0].prompt_ids + pairs[0].response_ids])
    labels = ids.clone()
    labels[:, : len(pairs[0].prompt_ids)] = -100
    model(ids, labels=labels).loss.backward()
    total = sum(float(p.grad.pow(2).sum()) for p in model.parameters() if p.grad is not None) ** 0.5
    assert norms[0] == pytest.approx(total, rel=1e-3)


def test_an_adapter_has_blocks_too(tokenizer: Any, tmp_path: Path) -> None:
    from dareu.config import LoraConfig
    from dareu.models.load import add_lora

    model = add_lora(make("Llama", tokenizer), LoraConfig(r=2)).eval()
    spans = spans_of(tokenizer)
    lens = logit_lens(Subject(model, tokenizer), spans)
    assert lens[:, -1] == pytest.approx(span_logprobs(Subject(model, tokenizer), spans), abs=1e-3)
