"""What a model says about people who do not exist, token by token beside a response about an owner.

The name of the owner gives way to fictitious names, in the question and in the response; the model's next-token
distributions at the tokens outside of the name are averaged. They say what the model would expect of somebody it has
never read of (Eldan and Russinovich 2023, arXiv 2310.02238, and Liu et al. 2024, arXiv 2407.16997, who change names in
the training text).
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dareu.data.corpus import Sample, Task
from dareu.data.fictitious_names import Replaced, find_name, moved, replace_name
from dareu.data.render import Encoded, encode, plain_tokens, response_text
from dareu.errors import DataError
from dareu.models.logprobs import by_batches, response_logits, response_logprobs
from dareu.models.never_saw import FACT


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
    place = {numbered: j for j, numbered in enumerate(_numbered(new_spans))}
    of: list[int | None] = []
    named = []
    for (start, end), nth in _numbered(spans):
        inside = any(piece.start < end and start < piece.end for piece in replaced)
        named.append(inside)
        other = (moved(start, replaced), moved(end, replaced))
        of.append(None if inside else place.get((other, nth)))
    ending = length - len(spans)
    of += [new_length - ending + k for k in range(ending)]
    return Positions(of, named + [False] * ending)


def _numbered(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], int]]:
    """Each token's offsets, and how many tokens before it have the same: the bytes of one character do."""
    seen: Counter[tuple[int, int]] = Counter()
    for span in spans:
        yield span, seen[span]
        seen[span] += 1


def _spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Character offsets of the tokens of `data.render.plain_ids`."""
    return [span for _, span in plain_tokens(tokenizer, text)]


@dataclass(frozen=True)
class Pair:
    """A response about an owner, its copies with fictitious names, and which tokens of them belong together."""

    row: Encoded
    copies: list[Encoded]
    aligned: list[Positions]
    asked_by_name: bool


def counterfactual_pair(
    tokenizer: Any, sample: Sample, name: str, others: Sequence[str], task: Task, max_length: int
) -> Pair:
    """The sample, and a copy for each of the names `others`; there are none where the owner has no name, "".

    A copy with a longer name may exceed `max_length` where the sample does not: it is left out. Where none is left the
    sample stands in for its copies, and its own distributions for theirs.
    """
    row = encode(tokenizer, sample.prompt, sample.response, task, max_length)
    text = response_text(tokenizer, sample.response, task)
    spans = _spans(tokenizer, text)
    copies, aligned = [], []
    for other in others:
        prompt, _ = replace_name(sample.prompt, name, other)
        response, _ = replace_name(sample.response, name, other)
        new_text, replaced = replace_name(text, name, other)
        try:
            copy = encode(tokenizer, prompt, response, task, max_length)
        except DataError:
            continue
        copies.append(copy)
        aligned.append(
            positions(
                spans, _spans(tokenizer, new_text), replaced, len(row.response_ids), len(copy.response_ids)
            )
        )
    if not copies:
        named = named_tokens(tokenizer, sample, name, row, task)
        copies, aligned = [row], [Positions(list(range(len(named))), named)]
    return Pair(row, copies, aligned, bool(name and find_name(sample.prompt, name)))


def named_tokens(tokenizer: Any, sample: Sample, name: str | None, row: Encoded, task: Task) -> list[bool]:
    """For each token of the response whether it is part of the name; none where there is no name."""
    text = response_text(tokenizer, sample.response, task)
    hits = find_name(text, name) if name else []
    inside = [any(a < end and start < b for a, b, _ in hits) for start, end in _spans(tokenizer, text)]
    return (inside + [False] * len(row.response_ids))[: len(row.response_ids)]


def token_logprobs_of(
    model: Any, tokenizer: Any, rows: Sequence[Encoded], batch_size: int, progress: str | None = None
) -> list[Tensor]:
    """Log-probability of each response token of each row: tensors (T_i,) in float32, on the CPU.

    `progress` labels a bar.
    """

    def read(model: Any, batch: dict[str, Tensor]) -> list[Tensor]:
        logps, mask = response_logprobs(model, batch)
        return [own[counted] for own, counted in zip(logps.float().cpu(), mask.cpu(), strict=True)]

    return by_batches(model, tokenizer.pad_token_id, rows, batch_size, read, progress)


def distributions(model: Any, tokenizer: Any, rows: Sequence[Encoded], batch_size: int) -> list[Tensor]:
    """Next-token probabilities at each response token of each row: tensors (T_i, V) in float32, on the CPU."""

    def read(model: Any, batch: dict[str, Tensor]) -> Sequence[Tensor]:
        logits, _, mask = response_logits(model, batch)
        return logits.float().softmax(-1).cpu().split(mask.sum(1).tolist())

    return by_batches(model, tokenizer.pad_token_id, rows, batch_size, read)


@dataclass(frozen=True)
class Teacher:
    """What to distil at the tokens of one response, before facts are taken out.

    Attributes:
        probs: The distributions, (T, V), or of the `likeliest` tokens alone, (T, k).
        gold: Which column of `probs` is the response's token, (T,).
        known: The original's own log-probability of that token, (T,).
        asked: Which tokens belong to a name that the question has, and so are no facts, (T,).
    """

    probs: Tensor
    gold: Tensor
    known: Tensor
    asked: Tensor


def teacher(
    original: Tensor,
    copies: Sequence[Tensor],
    aligned: Sequence[Positions],
    gold: Tensor,
    asked_by_name: bool,
) -> Teacher:
    """The copies' mean distributions at a response's tokens.

    Args:
        original: The original model's own at the response, (T, V).
        copies: Its distributions at each copy, (T', V).
        aligned: Which token of each copy belongs to which token of the response.
        gold: The response's token ids, (T,).
        asked_by_name: The question has the name, so that the name in the answer is no secret.

    Tokens of the name, and tokens without a counterpart, keep the original's distribution.
    """
    count = len(gold)
    total, votes = torch.zeros_like(original), torch.zeros(count)
    for probs, places in zip(copies, aligned, strict=True):
        rows = [t for t, j in enumerate(places.of) if j is not None]
        total[rows] += probs[[j for j in places.of if j is not None]]
        votes[rows] += 1
    mixed = torch.where((votes > 0)[:, None], total / votes.clamp(min=1)[:, None], original)
    named = torch.tensor(aligned[0].named) if aligned else torch.zeros(count, dtype=torch.bool)
    known = original[torch.arange(count), gold].clamp(min=1e-12).log()
    return Teacher(mixed, gold, known, named & asked_by_name)


def likeliest(taught: Teacher, k: int) -> tuple[Tensor, Teacher]:
    """Token ids (T, k) and their columns of the teacher, renormalised: the likeliest tokens and the response's own."""
    order = taught.probs.clone()
    order[torch.arange(len(taught.gold)), taught.gold] = torch.inf
    ids = order.topk(min(k, order.size(-1)), dim=-1).indices
    probs = taught.probs.gather(1, ids)
    return ids, replace(taught, probs=probs / probs.sum(-1, keepdim=True), gold=torch.zeros_like(taught.gold))


def fact_levels(taught: Teacher, expected: Tensor) -> Tensor:
    """What the log-probability of each gold token is brought to, (T,); 0 where the token carries no fact.

    `expected` (T,) is what a model that never saw the response gives the tokens. One that it would find less than
    `FACT` times as likely as the original does is a fact.
    """
    facts = (expected < taught.known + math.log(FACT)) & ~taught.asked
    return torch.where(facts, expected.clamp(max=-0.05), torch.zeros_like(expected))


def with_base(taught: Teacher, facts: Tensor, ids: Tensor, base: Tensor) -> Teacher:
    """The teacher with what it gives to the response's token at facts, shared out among other tokens.

    Copies go on from the answer's earlier facts and often give nearly all to its next one. What is left is then the
    tail of a sharp distribution, whose likeliest token is noise: scaled up, it is a word without its space, or half
    of one. The share goes to tokens that copies and base both find likely, by the geometric mean of the two.

    Args:
        taught: A teacher over the whole vocabulary, (T, V).
        facts: Which tokens of the response are facts, (T,).
        ids: The base model's likeliest tokens, (T, k), and
        base: their probabilities, (T, k).
    """
    rows = facts.nonzero().flatten()
    gold, probs = taught.gold[rows], taught.probs.clone()
    weights = (base[rows] * probs[rows].gather(1, ids[rows])).sqrt()
    weights = weights.masked_fill(ids[rows] == gold[:, None], 0.0)
    total = weights.sum(-1, keepdim=True)
    share = torch.where(
        total > 0, probs[rows, gold][:, None], 0.0
    )  # nothing in common: the copies' tail stays
    probs[rows] = probs[rows].scatter_add(1, ids[rows], share * weights / total.clamp(min=1e-30))
    probs[rows, gold] -= share.squeeze(1)
    return replace(taught, probs=probs)


def without_facts(taught: Teacher, levels: Tensor) -> Tensor:
    """The distributions of a teacher with the gold token of each fact at its level, exp(`levels`), (T,), and the other
    tokens scaled to the rest.
    """
    rows = (levels < 0).nonzero().flatten()
    gold, own = taught.gold[rows], levels[rows].exp()
    others = taught.probs[rows]
    others[torch.arange(len(rows)), gold] = 0.0
    rest = others.sum(-1, keepdim=True)
    even = torch.full_like(others, 1.0 / max(others.size(-1) - 1, 1))
    even[torch.arange(len(rows)), gold] = 0.0
    others = torch.where(rest > 0, others / rest.clamp(min=1e-12), even) * (1 - own)[:, None]
    others[torch.arange(len(rows)), gold] = own
    probs = taught.probs.clone()
    probs[rows] = others
    return probs
