"""Seeded generation, in batches ordered by length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dareu.models.progress import track


@dataclass(frozen=True)
class Generation:
    """A response: its text (stripped, no special tokens), its token ids (end-of-text left out) and whether it ended."""

    text: str
    ids: list[int]
    finished: bool


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token id that ends a response: the tokenizer's and those the model declares."""
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    return list(dict.fromkeys([tokenizer.eos_token_id, *declared]))


@torch.no_grad()
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
    from transformers import GenerationConfig

    was_training = model.training
    model.eval()
    ends = end_ids(model, tokenizer)
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0}
        if temperature > 0
        else {"do_sample": False}
    )
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
        use_cache=True,
        **sampling,
    )
    encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts]
    order = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
    results: list[Generation | None] = [None] * len(prompts)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for chunk in track([order[i : i + batch_size] for i in range(0, len(order), batch_size)], progress):
            width = max(len(encoded[i]) for i in chunk)
            ids = [[tokenizer.pad_token_id] * (width - len(encoded[i])) + encoded[i] for i in chunk]
            mask = [[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in chunk]
            output = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                generation_config=config,
            )[:, width:].tolist()
            for i, row in zip(chunk, output, strict=True):
                stop = next((k for k, t in enumerate(row) if t in ends), None)
                kept = row if stop is None else row[:stop]
                text = tokenizer.decode(kept, skip_special_tokens=True).strip()
                results[i] = Generation(text, kept, stop is not None)
    model.train(was_training)
    return [r for r in results if r is not None]
