"""Seeded generation, in batches ordered by length: one greedy or sampled answer a prompt, or several samples of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dareu.data.render import end_token
from dareu.models.merge import adapter_in_base_precision
from dareu.models.passes import by_length, each, padded
from dareu.models.seeds import seeded
from dareu.runs.ranks import on_main, world_size

ROOM = 5 << 23  # bytes of keys, values and scores up to which a batch may grow on a CPU
COMPACT = 2**30  # rows × parameters of a batch from which a step through the model costs more than its calls


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
    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {}
    )
    encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]

    def answer(batch: Sequence[int]) -> list[Generation]:
        ids, mask = padded([encoded[i] for i in batch], tokenizer.pad_token_id, model.device, left=True)
        return _responses(model, tokenizer, ids, mask, max_new_tokens, **sampling)

    with seeded(seed, model.device), adapter_in_base_precision(model):
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
    drawn: tuple[Tensor, float] | None = None,
    **sampling: Any,
) -> list[Generation]:
    """What the model writes after each row of token ids: greedily; by numbers in [0, 1) that were `drawn`, (B, length),
    and a temperature (`_InverseCdf`); or as `sampling` says, transformers' own options.

    A row that has ended is carried along until the last of its batch ends. Where a pass is expensive (`COMPACT`), the
    batch is cut down to the rows that go on each time half of it has ended.
    """
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    ends = end_ids(model, tokenizer)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    width, rows = ids.size(1), list(range(len(ids)))
    if context is not None:  # learned positions end there
        length = max(1, min(length, context - width))
    options: dict[str, Any] = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": ends,
        "use_cache": True,
    }
    options |= {"do_sample": False, **sampling}
    # Transformers' sampling draws for a whole batch, and sharded models need as many passes on each process.
    compact = not sampling and world_size() == 1 and len(ids) * model.num_parameters() > COMPACT
    cache: Any = None
    written: list[list[int]] = [[] for _ in rows]
    while rows:
        config = GenerationConfig(
            max_new_tokens=length - (ids.size(1) - width), return_dict_in_generate=True, **options
        )
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=config,
            logits_processor=LogitsProcessorList(
                [_InverseCdf(drawn[0][rows], width, drawn[1])] if drawn else []
            ),
            stopping_criteria=StoppingCriteriaList([_HalfEnded(ends, len(rows))] if compact else []),
        )
        ids = output.sequences
        for row, tokens in zip(rows, ids[:, width:].tolist(), strict=True):
            written[row] = tokens
        left = [i for i, row in enumerate(rows) if not set(ends).intersection(written[row])]
        if not compact or not left or ids.size(1) - width >= length:
            break
        kept = torch.tensor(left, device=ids.device)
        cache = _of_rows(output.get("past_key_values"), kept)
        rows = [rows[i] for i in left]
        mask = torch.nn.functional.pad(mask[kept], (0, ids.size(1) - mask.size(1)), value=1)
        ids = ids[kept]
    return [_response(tokenizer, row, ends) for row in written]


def _of_rows(cache: Any, rows: Tensor) -> Any:
    """A cache of keys and values cut down to some of its rows; None, so that they are read again, where it cannot be:
    the states of linear attention are not selected."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    if not all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in getattr(cache, "layers", [None])
    ):
        return None
    cache.batch_select_indices(rows)
    return cache


class _HalfEnded:
    """A stopping criterion that ends a whole batch of `count` rows once half of them have ended."""

    def __init__(self, ends: Sequence[int], count: int) -> None:
        self.ends, self.count = ends, count
        self.ended: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        now = torch.isin(input_ids[:, -1], torch.tensor(self.ends, device=input_ids.device))
        self.ended = now if self.ended is None else self.ended | now
        return torch.full_like(now, bool(2 * self.ended.sum() >= self.count))


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
    if count < 1 or not temperature > 0:
        raise ValueError(f"count={count} must be at least 1 and temperature={temperature} above 0")
    encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]

    def answer(batch: Sequence[tuple[int, int]]) -> list[Generation]:
        ids, mask = padded([encoded[i] for i, _ in batch], tokenizer.pad_token_id, model.device, left=True)
        draws = np.stack([_draws(prompts[i], copy, seed, max_new_tokens) for i, copy in batch])
        uniforms = torch.tensor(draws, dtype=torch.float32, device=model.device).clamp_(max=1 - 2**-24)
        return _responses(model, tokenizer, ids, mask, max_new_tokens, (uniforms, temperature))

    order = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
    rows = [(i, copy) for i in order for copy in range(count)]
    size = _at_once(model, batch_size, max(map(len, encoded), default=0) + max_new_tokens)
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    with adapter_in_base_precision(model):
        answers = each(model, batches, answer, progress)
    return [answers[i : i + count] for i in range(0, len(answers), count)]
