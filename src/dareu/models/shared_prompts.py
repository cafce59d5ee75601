"""Likelihoods of several responses to one prompt: the prompt passes through the model once, its keys serve all.

A question with one right and five wrong answers is read six times otherwise, and is often longer than the answers.
"""

import inspect
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from dareu.data.render import Encoded
from dareu.models.logprobs import head_at, picked_logprobs, response_nll
from dareu.models.passes import each, padded

Group = list[int]  # numbers of the pairs that share a prompt


def shared_prompt_nll(
    model: Any, tokenizer: Any, pairs: Sequence[Encoded], *, batch_size: int, progress: str | None = None
) -> list[tuple[float, int]]:
    """As `response_nll`: summed negative log-likelihood (nats) and number of tokens of each response, in their order.

    Args:
        batch_size: responses in a batch; one prompt's responses stay together, so that a batch may be larger.
    """
    groups: dict[tuple[int, ...], Group] = {}
    for i, pair in enumerate(pairs):
        groups.setdefault(tuple(pair.prompt_ids), []).append(i)
    if len(groups) == len(pairs) or () in groups or not takes_positions(model):
        return response_nll(model, tokenizer, pairs, batch_size=batch_size, progress=progress)

    def score(numbers: Sequence[int]) -> list[tuple[float, int]]:
        logps, mask = _logprobs(model, tokenizer.pad_token_id, [pairs[i] for i in numbers])
        return list(zip((-logps.sum(1)).tolist(), mask.sum(1).tolist(), strict=True))

    return each(model, _batches(pairs, list(groups.values()), batch_size), score, progress)


def takes_positions(model: Any) -> bool:
    """Whether the model takes positions, without which a prompt padded at its left would be read elsewhere."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(base.forward).parameters


def _batches(pairs: Sequence[Encoded], groups: list[Group], size: int) -> list[list[int]]:
    """Groups in batches of `size` responses or a little more, each of responses and prompts of like length."""
    longest = {id(g): max(len(pairs[i].response_ids) for i in g) for g in groups}
    batches: list[list[int]] = [[]]
    for group in sorted(groups, key=lambda g: (-longest[id(g)], -len(pairs[g[0]].prompt_ids))):
        if len(batches[-1]) >= size:
            batches.append([])
        batches[-1] += group
    return batches


def _logprobs(model: Any, pad: int, pairs: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """log p of each response token, (R, T), 0 on pads, and the mask of what counts; equal prompts follow each other."""
    groups = [list(group) for _, group in groupby(pairs, key=lambda pair: pair.prompt_ids)]
    prompts, answers = [group[0].prompt_ids for group in groups], [pair.response_ids for pair in pairs]
    of = torch.tensor([k for k, group in enumerate(groups) for _ in group], device=model.device)
    targets, counted = padded(answers, pad, model.device)
    goes_on = targets.size(1) > 1  # else nothing is read after the prompts
    logits, mask, cache = read_prompts(model, prompts, pad, goes_on)
    first = logits[of]
    logps = torch.zeros(counted.shape, device=model.device)
    logps[:, :1] = picked_logprobs(first, targets[:, 0], counted[:, :1].bool())
    if goes_on:
        cache.batch_select_indices(of)
        whole = torch.cat([mask[of], counted], dim=1)[:, :-1]
        keep = counted[:, 1:].bool()
        with head_at(model, keep):
            read = model(
                input_ids=targets[:, :-1],
                attention_mask=whole,
                position_ids=(whole.cumsum(1) - 1)[:, mask.size(1) :],
                past_key_values=cache,
                use_cache=True,
            )
        logps[:, 1:] = picked_logprobs(kept(read.logits, keep), targets[:, 1:][keep], keep)
    return logps, counted


def read_prompts(
    model: Any, prompts: Sequence[Sequence[int]], pad: int, to_go_on: bool = True
) -> tuple[Tensor, Tensor, Any]:
    """Logits after each prompt, (B, V), the mask (B, T) of the prompts, padded at their left, and the cache of keys and
    values, for passes that go on (None without `to_go_on`)."""
    ids, mask = padded(prompts, pad, model.device, left=True)
    ends = torch.zeros_like(mask, dtype=torch.bool)
    ends[:, -1] = True
    with head_at(model, ends):
        read = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=to_go_on,
        )
    return kept(read.logits, ends), mask, read.past_key_values


def kept(logits: Tensor, keep: Tensor) -> Tensor:
    """(N, V) of what `head_at` leaves, or of all logits where it could leave none out."""
    return logits[keep] if logits.shape[:2] == keep.shape else logits.squeeze(0)
