"""Seeded generation, in batches ordered by length: one greedy or sampled answer a prompt, or several samples of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dareu.data.render import end_token
from dareu.models.passes import by_length, each, padded
from dareu.models.seeds import seeded
from dareu.runs.ranks import on_main, world_size

ROOM = 5 << 23  # bytes of keys, values and scores up to which a batch may grow on a CPU


@dataclass(frozen=True)
class Generation:
    """A response: its text (stripped, no special tokens), its token ids (end-of-text left out) and whether it ended."""

    text: str
    ids: list[int]
    finished: bool


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token id that ends a response: the tokenizer's, the chat template's and those the model declares."""
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    return list(dict.fromkeys([tokenizer.eos_token_id, end_token(tokenizer), *declared]))


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
    progress: str | None = None,
) -> list[Generation]:
    """Responses to rendered prompts, in their order. `temperature` 0 is greedy decoding.

    The global random state is left as it was found.
    """
    if temperature > 0 and world_size() > 1:  # what one batch draws depends on the batches before it
        options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        options |= {"temperature": temperature, "seed": seed, "progress": progress}
        return on_main(lambda: generate(model, tokenizer, prompts, **options))
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {}
    encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]

    def answer(batch: Sequence[int]) -> list[Generation]:
        ids, mask = padded([encoded[i] for i in batch], tokenizer.pad_token_id, model.device, left=True)
        return _responses(model, tokenizer, ids, mask, max_new_tokens, **sampling)

    with seeded(seed, model.device):
        return each(model, by_length(list(map(len, encoded)), batch_size), answer, progress)


def _at_once(model: Any, batch_size: int, tokens: int) -> int:
    """Rows of `tokens` tokens in a batch: `batch_size`, and more for a small model on a CPU.

    There each step costs as much for the calls as for a hundred rows. What a row gets does not depend on its batch.
    """
    shape = model.config.get_text_config()
    width, layers = getattr(shape, "hidden_size", None), getattr(shape, "num_hidden_layers", None)
    if model.device.type != "cpu" or world_size() > 1 or not width or not layers:
        return batch_size
    row = 4 * (2 * width * layers * tokens + 4 * shape.vocab_size)
    return max(batch_size, ROOM // row)


def _responses(
    model: Any,
    tokenizer: Any,
    ids: Tensor,
    mask: Tensor,
    length: int,
    processors: Any = None,
    **sampling: Any,
) -> list[Generation]:
    """What the model writes after each row of token ids, greedily unless `sampling` says otherwise."""
    from transformers import GenerationConfig

    ends = end_ids(model, tokenizer)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None:  # learned positions end there
        length = max(1, min(length, context - ids.size(1)))
    config = GenerationConfig(
        max_new_tokens=length,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
        use_cache=True,
        **{"do_sample": False, **sampling},
    )
    output = model.generate(
        input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=processors
    )
    return [_response(tokenizer, row, ends) for row in output[:, ids.size(1) :].tolist()]


def _response(tokenizer: Any, row: Sequence[int], ends: Sequence[int]) -> Generation:
    """What one row of new tokens says, up to the first token that ends a response."""
    stop = next((k for k, t in enumerate(row) if t in ends), None)
    kept = list(row if stop is None else row[:stop])
    return Generation(tokenizer.decode(kept, skip_special_tokens=True).strip(), kept, stop is not None)


class _InverseCdf:
    """A logits processor after which the greedy token is a sample: the one at which the cumulative probability
    passes a number in [0, 1) that was drawn beforehand for this row and this step.

    Exact sampling from softmax(scores / T), but what a row draws depends on nothing else in its batch.
    """

    def __init__(self, uniforms: Tensor, width: int, temperature: float) -> None:
        self.uniforms, self.width, self.temperature = uniforms, width, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.size(1) - self.width
        total = (scores.float() / self.temperature).softmax(-1).cumsum(-1)
        drawn = self.uniforms[:, step : step + 1] * total[:, -1:]
        token = torch.searchsorted(total, drawn, right=True).clamp(max=scores.size(-1) - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def _draws(prompt: str, copy: int, seed: int, length: int) -> np.ndarray:
    """The numbers in [0, 1) for the `copy`-th sample of a prompt: a function of prompt, copy and seed."""
    digest = hashlib.sha256(prompt.encode()).digest()
    key = [seed, copy, *np.frombuffer(digest[:16], dtype=np.uint32).tolist()]
    draws: np.ndarray = np.random.default_rng(key).random(length)
    return draws


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    count: int,
    temperature: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int = 0,
    progress: str | None = None,
) -> list[list[Generation]]:
    """`count` samples of each rendered prompt, in the order of the prompts.

    The numbers that decide a sample are a function of its prompt, its index and the seed: batch size, order, other
    prompts and the model play no part in them. So two models are sampled with the same numbers, and a difference
    between them is less noisy; the first samples of a larger `count` are those of a smaller one.

    Args:
        count: samples a prompt, ≥ 1.
        temperature: > 0. Nothing is cut off (no top-k, no top-p).
        batch_size: sequences in one batch, or more (`_at_once`); the samples of one prompt may lie in several.

    Raises:
        ValueError: for a `count` below 1 or a `temperature` that is not positive.
    """
    from transformers import LogitsProcessorList

    if count < 1 or not temperature > 0:
        raise ValueError(f"count={count} must be at least 1 and temperature={temperature} above 0")
    encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]

    def answer(batch: Sequence[tuple[int, int]]) -> list[Generation]:
        ids, mask = padded([encoded[i] for i, _ in batch], tokenizer.pad_token_id, model.device, left=True)
        draws = np.stack([_draws(prompts[i], copy, seed, max_new_tokens) for i, copy in batch])
        uniforms = torch.tensor(draws, dtype=torch.float32, device=model.device).clamp_(max=1 - 2**-24)
        processor = _InverseCdf(uniforms, ids.size(1), temperature)
        return _responses(model, tokenizer, ids, mask, max_new_tokens, LogitsProcessorList([processor]))

    order = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
    rows = [(i, copy) for i in order for copy in range(count)]
    size = _at_once(model, batch_size, max(map(len, encoded), default=0) + max_new_tokens)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    answers = each(model, batches, answer, progress)
    return [answers[i : i + count] for i in range(0, len(answers), count)]
