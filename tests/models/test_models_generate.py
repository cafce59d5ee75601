"""Seeded generation and likelihoods of responses, against plain loops over the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models_fixture import PROMPTS, make_folder
from torch import Tensor

from dareu.data.render import Encoded
from dareu.models.generate import end_ids, generate
from dareu.models.load import load_model
from dareu.models.logprobs import masked_mean, response_nll, to_batch

LIMIT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("generate") / "base")


@pytest.fixture(scope="module")
def saved(folder: Path) -> tuple[Any, Any]:
    return load_model(folder)


@pytest.fixture
def model(saved: tuple[Any, Any]) -> Iterator[Any]:
    declared = saved[0].generation_config.eos_token_id
    yield saved[0]
    saved[0].generation_config.eos_token_id = declared


@pytest.fixture
def tokenizer(saved: tuple[Any, Any]) -> Any:
    return saved[1]


@torch.no_grad()
def greedy(model: Any, tokenizer: Any, prompt: str) -> list[int]:
    """The likeliest token again and again, one prompt at a time: no padding, no cache, no library."""
    ids, new = tokenizer(prompt)["input_ids"], []
    for _ in range(LIMIT):
        new.append(int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax()))
    return new


def cut(ids: list[int], ends: list[int]) -> list[int]:
    """Up to the first end-of-text token, which is left out."""
    return ids[: next((k for k, t in enumerate(ids) if t in ends), len(ids))]


def ids_of(model: Any, tokenizer: Any, prompts: list[str] | None = None, **options: Any) -> list[list[int]]:
    options = {"max_new_tokens": LIMIT, "batch_size": 3} | options
    return [g.ids for g in generate(model, tokenizer, PROMPTS if prompts is None else prompts, **options)]


# --- greedy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 5, 50])
def test_greedy_is_the_plain_loop_for_every_batch_size(model: Any, tokenizer: Any, batch_size: int) -> None:
    lengths = {len(tokenizer(p)["input_ids"]) for p in PROMPTS}
    assert len(lengths) > 2  # or nothing is padded
    wanted = [cut(greedy(model, tokenizer, p), [tokenizer.eos_token_id]) for p in PROMPTS]
    assert len({tuple(w) for w in wanted}) == len(PROMPTS)
    assert ids_of(model, tokenizer, batch_size=batch_size) == wanted


def test_responses_come_in_the_order_of_the_prompts(model: Any, tokenizer: Any) -> None:
    forward = generate(model, tokenizer, PROMPTS, max_new_tokens=LIMIT, batch_size=2)
    backward = generate(model, tokenizer, PROMPTS[::-1], max_new_tokens=LIMIT, batch_size=2)
    assert backward == forward[::-1]
    assert generate(model, tokenizer, [], max_new_tokens=LIMIT, batch_size=2) == []


def test_a_response_ends_at_the_first_end_of_text(model: Any, tokenizer: Any) -> None:
    whole = greedy(model, tokenizer, PROMPTS[1])
    end = whole[4]
    model.generation_config.eos_token_id = [end, 1]  # the model may declare more ends than the tokenizer
    assert end_ids(model, tokenizer) == [tokenizer.eos_token_id, *{end, 1} - {tokenizer.eos_token_id}]
    for prompt, found in zip(
        PROMPTS, generate(model, tokenizer, PROMPTS, max_new_tokens=LIMIT, batch_size=5), strict=True
    ):
        wanted = cut(greedy(model, tokenizer, prompt), end_ids(model, tokenizer))
        assert found.ids == wanted
        assert found.finished == (len(wanted) < LIMIT)
        assert found.text == tokenizer.decode(found.ids, skip_special_tokens=True).strip()
    assert generate(model, tokenizer, PROMPTS[1:2], max_new_tokens=LIMIT, batch_size=1)[0].finished


def test_the_tokenizers_end_of_text_ends_a_response(model: Any, folder: Path) -> None:
    _, tokenizer = load_model(folder)
    free = generate(model, tokenizer, PROMPTS[1:2], max_new_tokens=LIMIT, batch_size=1)[0]
    assert not free.finished and len(free.ids) == LIMIT
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(free.ids[2])
    model.generation_config.eos_token_id = None
    cut = generate(model, tokenizer, PROMPTS[1:2], max_new_tokens=LIMIT, batch_size=1)[0]
    assert cut.finished and cut.ids == free.ids[: free.ids.index(free.ids[2])]


def test_special_tokens_that_end_nothing_are_kept_out_of_the_text(model: Any, folder: Path) -> None:
    _, tokenizer = load_model(folder)
    special = tokenizer.eos_token
    tokenizer.eos_token, model.generation_config.eos_token_id = "<|user|>", None
    tokenizer.chat_template = None  # which ends an answer with that token
    found = generate(model, tokenizer, PROMPTS, max_new_tokens=LIMIT, batch_size=5)
    holding = [g for g in found if tokenizer.convert_tokens_to_ids(special) in g.ids]
    assert holding and not any(special in g.text for g in holding)


def test_settings_of_a_checkpoint_do_not_leak(
    folder: Path, tmp_path: Path, model: Any, tokenizer: Any
) -> None:
    shutil.copytree(folder, tmp_path / "opinionated")
    path = tmp_path / "opinionated" / "generation_config.json"
    shipped = {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.1, "repetition_penalty": 5.0,
               "no_repeat_ngram_size": 1, "eos_token_id": [1, 7]}  # fmt: skip
    path.write_text(json.dumps(json.loads(path.read_text()) | shipped))
    opinionated, _ = load_model(tmp_path / "opinionated")
    assert end_ids(opinionated, tokenizer) == [1, 7]  # what ends a response is no matter of taste
    opinionated.generation_config.eos_token_id = 1
    wanted = ids_of(model, tokenizer)
    assert any(len(set(ids)) < len(ids) for ids in wanted)  # or repetition settings could not show
    assert ids_of(opinionated, tokenizer) == wanted
    sampled = {"temperature": 1.5, "seed": 4}
    assert ids_of(opinionated, tokenizer, **sampled) == ids_of(model, tokenizer, **sampled) != wanted


# --- sampling -----------------------------------------------------------------------------------------------------


def test_sampling_is_a_function_of_its_seed_and_leaves_the_random_state(model: Any, tokenizer: Any) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = ids_of(model, tokenizer, temperature=1.0, seed=5)
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(2)
    assert ids_of(model, tokenizer, temperature=1.0, seed=5) == first
    assert ids_of(model, tokenizer, temperature=1.0, seed=6) != first


def test_cold_sampling_is_greedy(model: Any, tokenizer: Any) -> None:
    assert ids_of(model, tokenizer, temperature=1e-4, seed=5) == ids_of(model, tokenizer)
    assert ids_of(model, tokenizer, temperature=3.0, seed=5) != ids_of(model, tokenizer)


def test_sampling_draws_from_the_whole_vocabulary(model: Any, tokenizer: Any) -> None:
    # At temperature 1000 the 300 tokens that may come first are about equally likely. Of 300 draws about 190 differ;
    # the transformers default, the 50 likeliest, would leave 50.
    options = {"max_new_tokens": 1, "temperature": 1000.0, "batch_size": 300}
    drawn = {tuple(ids) for ids in ids_of(model, tokenizer, ["Who"] * 300, **options)}
    assert len(drawn) > 150


@pytest.mark.parametrize("training", [True, False])
def test_generation_drops_no_units_and_leaves_the_mode(model: Any, tokenizer: Any, training: bool) -> None:
    modes: list[bool] = []
    model.train(training)
    hook = model.register_forward_pre_hook(lambda module, args: modes.append(module.training))
    try:
        ids_of(model, tokenizer)
        response_nll(model, tokenizer, [Encoded([5], [6])], batch_size=1)
    finally:
        hook.remove()
    assert modes and not any(modes) and model.training == training
    model.eval()


# --- likelihood of responses --------------------------------------------------------------------------------------

PAIRS = [Encoded([5, 6, 7], [8, 9, 1]), Encoded([5], [1]), Encoded([9, 8], [7, 6, 5, 4, 1])]


@torch.no_grad()
def by_hand(model: Any, pair: Encoded) -> Tensor:
    """−log p of every response token of one pair."""
    ids = torch.tensor([[*pair.prompt_ids, *pair.response_ids]])
    logps = model(input_ids=ids).logits[0].log_softmax(-1)
    first = len(pair.prompt_ids)
    return -torch.stack([logps[k - 1, ids[0, k]] for k in range(first, len(pair))])


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_response_nll(model: Any, tokenizer: Any, batch_size: int) -> None:
    wanted = [by_hand(model, pair) for pair in PAIRS]
    found = response_nll(model, tokenizer, PAIRS, batch_size=batch_size)
    assert [n for _, n in found] == [3, 1, 5]
    assert [s for s, _ in found] == pytest.approx([float(w.sum()) for w in wanted], rel=1e-5)
    found = response_nll(model, tokenizer, PAIRS, batch_size=batch_size, include_eos=False)
    assert [n for _, n in found] == [2, 0, 4]
    assert [s for s, _ in found] == pytest.approx([float(w[:-1].sum()) for w in wanted], rel=1e-5)


def test_to_batch_and_masked_mean() -> None:
    batch = to_batch(PAIRS[1:], 0, "cpu", side="left")
    assert batch["input_ids"].tolist() == [[0, 0, 0, 0, 0, 5, 1], [9, 8, 7, 6, 5, 4, 1]]
    assert batch["attention_mask"].tolist() == [[0] * 5 + [1] * 2, [1] * 7]
    assert batch["labels"].tolist() == [[-100] * 6 + [1], [-100, -100, 7, 6, 5, 4, 1]]
    values = torch.tensor([[1.0, 4.0], [7.0, 100.0]])
    assert float(masked_mean(values, torch.tensor([[1, 1], [1, 0]]))) == 4.0  # 12 / 3
    assert float(masked_mean(values, torch.zeros(2, 2))) == 0.0
