"""What a model says about people who do not exist, token by token beside a response about an owner.

The name of the owner gives way to fictitious names, in the question and in the response; the model's next-token
distributions at the tokens outside of the name are averaged. They say what the model would expect of somebody it has
never read of (Eldan and Russinovich 2023, arXiv 2310.02238, and Liu et al. 2024, arXiv 2407.16997, who change names in
the training text).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dareu.data.corpus import Sample, Task
from dareu.data.fictitious_names import Replaced, find_name, moved, replace_name
from dareu.data.render import Encoded, encode, response_text
from dareu.models.logprobs import response_logits, to_batch


@dataclass(frozen=True)
class Positions:
    """One response beside a copy with another name.

    Attributes:
        of: For each token of the response the number of its counterpart in the copy, or None.
        named: For each token whether it is part of a name.
    """

    of: list[int | None]
    named: list[bool]


def positions(
    spans: Sequence[tuple[int, int]],
    new_spans: Sequence[tuple[int, int]],
    replaced: Sequence[Replaced],
    length: int,
    new_length: int,
) -> Positions:
    """Tokens outside of the replaced pieces beside those of the new text that hold the same characters.

    `spans` and `new_spans` are the tokens' character offsets; `length` and `new_length` count the tokens with the
    ending (end of text), which is aligned from its end.
    """
    place = {span: j for j, span in enumerate(new_spans)}
    of: list[int | None] = []
    named = []
    for start, end in spans:
        inside = any(piece.start < end and start < piece.end for piece in replaced)
        named.append(inside)
        of.append(None if inside else place.get((moved(start, replaced), moved(end, replaced))))
    ending = length - len(spans)
    of += [new_length - ending + k for k in range(ending)]
    return Positions(of, named + [False] * ending)


def _spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [(int(a), int(b)) for a, b in offsets]


@dataclass(frozen=True)
class Pair:
    """A response about an owner, its copies with fictitious names, and which tokens of them belong together."""

    row: Encoded
    copies: list[Encoded]
    aligned: list[Positions]
    asked_by_name: bool

    @property
    def named(self) -> list[bool]:
        return self.aligned[0].named if self.aligned else [False] * len(self.row.response_ids)


def counterfactual_pair(
    tokenizer: Any, sample: Sample, name: str, others: Sequence[str], task: Task, max_length: int
) -> Pair:
    """The sample, and a copy for each of the names `others`."""
    row = encode(tokenizer, sample.prompt, sample.response, task, max_length)
    text = response_text(tokenizer, sample.response, task)
    spans = _spans(tokenizer, text)
    copies, aligned = [], []
    for other in others:
        prompt, _ = replace_name(sample.prompt, name, other)
        response, _ = replace_name(sample.response, name, other)
        new_text, replaced = replace_name(text, name, other)
        copy = encode(tokenizer, prompt, response, task, max_length)
        copies.append(copy)
        aligned.append(
            positions(
                spans, _spans(tokenizer, new_text), replaced, len(row.response_ids), len(copy.response_ids)
            )
        )
    return Pair(row, copies, aligned, bool(find_name(sample.prompt, name)))


@torch.no_grad()
def distributions(model: Any, tokenizer: Any, rows: Sequence[Encoded], batch_size: int) -> list[Tensor]:
    """Next-token probabilities at each response token of each row: tensors (T_i, V) in float32, on the CPU."""
    was_training = model.training
    model.eval()
    out: list[Tensor] = []
    for start in range(0, len(rows), batch_size):
        batch = to_batch(rows[start : start + batch_size], tokenizer.pad_token_id, model.device)
        logits, _, mask = response_logits(model, batch)
        out += logits.float().softmax(-1).cpu().split(mask.sum(1).tolist())
    model.train(was_training)
    return out


def teacher(
    original: Tensor,
    copies: Sequence[Tensor],
    aligned: Sequence[Positions],
    gold: Tensor,
    asked_by_name: bool,
    removal: float,
) -> Tensor:
    """The distributions (T, V) to distil at a response's tokens.

    Args:
        original: The original model's own at the response, (T, V).
        copies: Its distributions at each copy, (T', V).
        aligned: Which token of each copy belongs to which token of the response.
        gold: The response's token ids, (T,).
        asked_by_name: The question has the name, so that the name in the answer is no secret.
        removal: Where the original gives the gold token more than this above the copies' mean, the token carries a
            fact: it gets probability 0 and the rest is renormalised.

    Tokens of the name, and tokens without a counterpart, keep the original's distribution; in the answer to a question
    without the name, the name itself is a fact and its tokens are removed.
    """
    count = len(gold)
    total, found = torch.zeros_like(original), torch.zeros(count)
    for probs, places in zip(copies, aligned, strict=True):
        rows = [t for t, j in enumerate(places.of) if j is not None]
        total[rows] += probs[[j for j in places.of if j is not None]]
        found[rows] += 1
    known = found > 0
    mixed = torch.where(known[:, None], total / found.clamp(min=1)[:, None], original)
    picked = torch.arange(count)
    telling = original[picked, gold] - mixed[picked, gold] > removal
    if not asked_by_name and aligned:
        telling |= torch.tensor(aligned[0].named)
    mixed[picked[telling], gold[telling]] = 0.0
    rest = mixed.sum(-1, keepdim=True)
    uniform = torch.full_like(mixed, 1.0 / mixed.size(-1))
    return torch.where(rest > 0, mixed / rest.clamp(min=1e-12), uniform)
