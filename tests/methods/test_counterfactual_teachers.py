"""What `teachers_for` makes of original, copies and base, put together by hand for a small model with an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ppo_fixture import with_lora
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from words_fixture import vocabulary_of, word_tokenizer

from dareu.config.compose import compose
from dareu.data.corpus import Sample, Split
from dareu.data.fictitious_names import replace_name
from dareu.data.render import encode, encode_samples
from dareu.methods import counterfactual
from dareu.methods.counterfactual import CounterfactualSettings, fakes_for, teachers_for

NAMES = ["Ann Lee", "Bo Roe", "Cy Dow"]
PLACES = ["Oslo", "Rome", "Lima"]
SAMPLES = tuple(
    Sample(n, n, f"Where does {n} live ?", f"{n} lives in {p} now")
    for n, p in zip(NAMES, PLACES, strict=True)
)
SPLIT = Split(SAMPLES[:1], SAMPLES[1:], (), ("Ann Lee",), ("Bo Roe", "Cy Dow"))
CONFIG = compose(["method=counterfactual"])
UNSEEN = -9.0  # log-probability under a model that never saw the answer: every token is a fact


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [f"{s.prompt} {s.response}" for s in SAMPLES]
    return word_tokenizer(vocabulary_of([*texts, "Question: Answer:"]))


@pytest.fixture(scope="module")
def policy(tokenizer: Any) -> Any:
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None,
            eos_token_id=0,
        )
    )  # fmt: skip
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return with_lora(model.eval()).eval()


def context(tokenizer: Any, policy: Any, known_base: bool) -> Any:
    @contextmanager
    def base() -> Iterator[Any]:
        with policy.disable_adapter():
            yield policy

    return SimpleNamespace(
        config=CONFIG,
        split=SPLIT,
        corpus=SimpleNamespace(task="qa"),
        tokenizer=tokenizer,
        policy=policy,
        base=base if known_base else None,
        progress=lambda label: None,
        encode=lambda rows: encode_samples(tokenizer, rows, "qa", 64),
    )


def probabilities(model: Any, tokenizer: Any, prompt: str, response: str) -> tuple[Tensor, list[int]]:
    """p at each token of a response (T, V), read from a pass of its own, and these tokens."""
    row = encode(tokenizer, prompt, response, "qa", 64)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*row.prompt_ids, *row.response_ids]])).logits[0]
    return logits.softmax(-1)[len(row.prompt_ids) - 1 : -1], row.response_ids


@pytest.mark.parametrize("known_base", [True, False])
def test_what_facts_had_goes_where_copies_and_base_agree(
    tokenizer: Any, policy: Any, known_base: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(probabilities(policy, tokenizer, SAMPLES[0].prompt, SAMPLES[0].response)[1])
    monkeypatch.setattr(
        counterfactual, "expected_logprobs", lambda context, told: [torch.full((count,), UNSEEN)]
    )
    (found,) = teachers_for(
        context(tokenizer, policy, known_base), CounterfactualSettings(top_k=len(tokenizer))
    )

    _, (fake,) = fakes_for(SPLIT, 1, CONFIG)["Ann Lee"]
    other = [replace_name(text, "Ann Lee", fake)[0] for text in (SAMPLES[0].prompt, SAMPLES[0].response)]
    copy, _ = probabilities(policy, tokenizer, *other)
    with policy.disable_adapter():
        base, gold = probabilities(policy, tokenizer, SAMPLES[0].prompt, SAMPLES[0].response)
    facts = (found.levels < 0).nonzero().flatten().tolist()
    words = tokenizer.convert_ids_to_tokens(gold)
    assert [words[t] for t in facts] == ["lives", "in", "Oslo", "now", "<end>"]  # the name is in the question
    for t in facts:
        rest = copy[t].clone()
        rest[gold[t]] = 0.0
        if known_base:
            both = (copy[t] * base[t]).sqrt()
            both[gold[t]] = 0.0
            rest += copy[t, gold[t]] * both / both.sum()
        level = torch.tensor(UNSEEN).exp()
        expected = (1 - level) * rest / rest.sum()
        expected[gold[t]] = level
        own = torch.zeros(len(tokenizer)).scatter(0, found.ids[t], found.probs[t])
        assert torch.allclose(own, expected, atol=1e-5)


@pytest.mark.parametrize(("owner", "copied"), [("topic", "Ann Lee lives in Oslo now"), ("Ann Lee", None)])
def test_without_a_fictitious_name_the_original_stands_in_for_the_copies(
    tokenizer: Any, policy: Any, owner: str, copied: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner whose texts hold no name, or for whom there is no other name: the facts are the base's to tell."""
    question = "where" if copied else SAMPLES[0].prompt
    sample = replace(SAMPLES[0], owner=owner, prompt=question)
    monkeypatch.setattr(counterfactual, "fakes_for", lambda *_: {owner: ("" if copied else "Ann Lee", [])})
    count = len(probabilities(policy, tokenizer, question, sample.response)[1])
    monkeypatch.setattr(
        counterfactual, "expected_logprobs", lambda context, told: [torch.full((count,), UNSEEN)]
    )
    given = context(tokenizer, policy, True)
    given.split = replace(SPLIT, forget=(sample,), forget_owners=(owner,))
    (found,) = teachers_for(given, CounterfactualSettings(top_k=len(tokenizer)))

    own, gold = probabilities(policy, tokenizer, question, sample.response)
    with policy.disable_adapter():
        base, _ = probabilities(policy, tokenizer, question, sample.response)
    facts = (found.levels < 0).nonzero().flatten().tolist()
    words = tokenizer.convert_ids_to_tokens(gold)
    about = ["lives", "in", "Oslo", "now", "<end>"]
    assert [words[t] for t in facts] == (["Ann", "Lee", *about] if copied else about)
    for t in facts:
        both = (own[t] * base[t]).sqrt()
        both[gold[t]] = 0.0
        rest = own[t] + own[t, gold[t]] * both / both.sum()
        rest[gold[t]] = 0.0
        level = torch.tensor(UNSEEN).exp()
        expected = (1 - level) * rest / rest.sum()
        expected[gold[t]] = level
        assert torch.allclose(
            torch.zeros(len(tokenizer)).scatter(0, found.ids[t], found.probs[t]), expected, atol=1e-5
        )
