"""Token log-probabilities: the one place where labels are shifted and masked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dareu.data.render import Encoded
from dareu.models.divergence import kl_divergence as kl_divergence
from dareu.models.layers import has_dropout, weights_of_a_block
from dareu.models.passes import by_length, each, evaluating, like_length, padded
from dareu.runs.ranks import world_size

IGNORE = -100
# What one batch holds without gradients at most, so that its memory stays beside that of generation: entries of its
# logits (128 MB in float32, whatever the vocabulary), and tokens, pads included.
LOGITS = 2**25
TOKENS = 2**11
# Entries of the logits whose distributions are looked at together: several copies of them are needed.
SLICE = 2**20
# Tokens that cost as much as one more pass forth and back on a CPU, with room: 27 for SmolLM2-135M with LoRA, whose 30
# blocks have 3.5 million weights each; 60 for four blocks of 197,000 (one thread).
CALL = 48
LARGE = 10**6  # weights of a block from which on rows of like length pass apart
MOST_PADDED = 1.15  # two batches make one where that has no more than so many times their cells


def shift(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Align predictions with the tokens they predict.

    `logits` (B, T, V), `labels` (B, T) with -100 where nothing counts. Returns logits (B, T-1, V), targets
    (B, T-1) with 0 in place of -100 (so that they may index), and the mask (B, T-1) of what counts.
    """
    targets, mask = _shift_labels(labels)
    return logits[:, :-1], targets, mask


def _shift_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """What `shift` gives beside the logits."""
    targets = labels[:, 1:]
    mask = targets != IGNORE
    return targets.masked_fill(~mask, 0), mask


def token_logprobs(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """log p(label) for each position: `(B, T-1)` log-probabilities (0 where masked) and the `(B, T-1)` mask.

    Logits at masked positions are never read, whatever they hold.
    """
    logits, targets, mask = shift(logits, labels)
    return picked_logprobs(logits[mask], targets[mask], mask), mask


@contextmanager
def head_at(model: Any, keep: Tensor) -> Iterator[None]:
    """Inside, the model's head sees the positions `keep` (B, T) alone: its logits are (1, N, V), N = keep.sum().

    What a model does to its logits afterwards (a scale, a soft cap) still happens. A model whose head is no module
    of its own gives all logits, (B, T, V), as ever.
    """

    def select(head: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = args
        return (hidden[keep].unsqueeze(0), *rest) if hidden.shape[:2] == keep.shape else args

    head = getattr(model, "module", model).get_output_embeddings()  # `module`: inside a wrapper for processes
    handle = head.register_forward_pre_hook(select) if isinstance(head, torch.nn.Module) else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def response_logits(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """`shift` of the counted positions alone: logits (N, V), targets (N) and the mask (B, T-1), N = mask.sum().

    `batch` holds `input_ids`, `attention_mask` and `labels`, (B, T). The head over a large vocabulary costs as much as
    many layers, and its (B, T, V) logits more memory than the model: prompts and pads are left out before it.
    """
    targets, mask = _shift_labels(batch["labels"])
    keep = F.pad(mask, (0, 1))  # the position before each counted token, so never the last
    with head_at(model, keep):
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
    logits = logits[keep] if logits.shape[:2] == keep.shape else logits.squeeze(0)
    return logits, targets[mask], mask


def response_logprobs(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """`token_logprobs` of a batch, by way of `response_logits`."""
    logits, targets, mask = response_logits(model, batch)
    return picked_logprobs(logits, targets, mask), mask


def answer_logprobs(model: Any, rows: Sequence[Encoded], pad_id: int, device: Any) -> Tensor:
    """log p (N,) of all answer tokens of the rows, in passes of rows of like length where these cost less than one.

    One pass for small models and on other devices than a CPU, where a call costs as much as many rows; in several
    processes, which have to take equally many; and with dropout, whose draws depend on what passes together.
    """
    alone = torch.device(device).type == "cpu" and world_size() == 1
    parts = [rows]
    if alone and weights_of_a_block(model) >= LARGE and not has_dropout(model):
        chunks = like_length([len(row) for row in rows], CALL)
        parts = [[rows[i] for i in chunk] for chunk in chunks]
    found = []
    for part in parts:
        logps, mask = response_logprobs(model, to_batch(part, pad_id, device))
        found.append(logps[mask])
    return torch.cat(found)


def picked_logprobs(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """log p of each counted token, (B, T), 0 elsewhere; from `logits` (N, V), `targets` (N) and `mask` (B, T)."""
    return spread(-F.cross_entropy(logits.float(), targets, reduction="none"), mask)


def logits_of_both(
    model: Any, one: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """`response_logits` of two right-padded batches, from one pass where that costs less than two.

    A small model on a CPU spends as long on starting its operations as on some ten rows; rows of unlike length would
    cost more in pads than that saves.
    """
    batches = (one, other)
    (rows, left), (more, right) = (batch["input_ids"].shape for batch in batches)
    width = max(left, right)
    if width * (rows + more) > MOST_PADDED * (rows * left + more * right):
        return response_logits(model, one), response_logits(model, other)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": IGNORE}
    joined = {
        name: torch.cat([F.pad(b[name], (0, width - b[name].size(1)), value=value) for b in batches])
        for name, value in fill.items()
    }
    logits, targets, mask = response_logits(model, joined)
    first = int(mask[:rows].sum())
    return (
        (logits[:first], targets[:first], mask[:rows, : left - 1]),
        (logits[first:], targets[first:], mask[rows:, : right - 1]),
    )


def completion_batch(ids: Tensor, attention: Tensor, length: int) -> tuple[dict[str, Tensor], Tensor]:
    """For `response_logits`: prompts, padded at their left, and completions, (B, T), with all pads at the right; and
    the mask (B, length) of the last `length` tokens, which are the counted ones, in the same order.

    Narrower by the pads that no row needs. Only on a CPU: elsewhere TRL passes the policy, and pads stay where it has
    them, else models with absolute positions would be compared with themselves at others.
    """
    labels = ids.masked_fill(attention == 0, IGNORE)
    labels[:, :-length] = IGNORE
    batch = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    mask = attention[:, -length:].bool()
    if ids.device.type != "cpu":
        return batch, mask
    order = (attention == 0).int().argsort(dim=1, stable=True)[:, : int(attention.sum(1).max())]
    return {name: values.gather(1, order) for name, values in batch.items()}, mask


def completion_logits(
    model: Any, ids: Tensor, attention: Tensor, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`response_logits` of the last `length` tokens of `ids` (B, T): logits (N, V), targets (N), mask (B, length)."""
    batch, mask = completion_batch(ids, attention, length)
    logits, targets, _ = response_logits(model, batch)
    return logits, targets, mask


def completion_logprobs(
    logits: Tensor, targets: Tensor, mask: Tensor, temperature: float, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """log p of each token of a completion, and the entropy there, both (B, length), in nats.

    Of what `completion_logits` gives, at `temperature`; 0 on pads. Entropies are part of the graph only where asked
    for.
    """
    every = (logits.float() / temperature).log_softmax(-1)
    logps = spread(every.gather(1, targets.unsqueeze(1)).squeeze(1), mask)
    every = every if entropy_gradient else every.detach()
    return logps, spread(-(every.exp() * every).sum(-1), mask)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """`values` (N,) where `mask` (B, T) is true, in its order, in float32; 0 elsewhere."""
    out = torch.zeros(mask.shape, device=values.device)
    out[mask] = values.float()
    return out


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is true; 0 where it is true nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def to_batch(rows: Sequence[Encoded], pad_id: int, device: Any, side: str = "right") -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and `labels`, each (B, T), of rows that are padded at one side.

    Labels are the input ids on response positions and `IGNORE` elsewhere, not shifted. The mask comes from lengths,
    never from the pad id: a real end-of-text token that is also the pad token stays visible.
    """
    left = side == "left"
    ids, mask = padded([[*r.prompt_ids, *r.response_ids] for r in rows], pad_id, device, left)
    gold = [[*[IGNORE] * len(r.prompt_ids), *r.response_ids] for r in rows]
    return {"input_ids": ids, "attention_mask": mask, "labels": padded(gold, IGNORE, device, left)[0]}


def vocabulary_of(model: Any) -> int:
    """Entries of one position's logits."""
    return int(model.config.get_text_config().vocab_size)


def rows_that_fit(pairs: Sequence[Encoded], batch_size: int, vocabulary: int) -> int:
    """Rows of a batch of pairs like these: `batch_size`, or so many as `TOKENS` and `LOGITS` allow; at least 1."""
    width = max(map(len, pairs), default=1)
    counted = max((len(pair.response_ids) for pair in pairs), default=1)
    return max(1, min(batch_size, TOKENS // width, LOGITS // (counted * vocabulary)))


def length_batches(pairs: Sequence[Encoded], batch_size: int, vocabulary: int) -> list[list[int]]:
    """The pairs' numbers in batches of `rows_that_fit`, the longest pairs first."""
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i]))
    chunks: list[list[int]] = []
    while order:
        rows = rows_that_fit([pairs[i] for i in order[:batch_size]], batch_size, vocabulary)
        chunks.append(order[:rows])
        order = order[rows:]
    return chunks


def by_batches(
    model: Any,
    pad_id: int,
    rows: Sequence[Encoded],
    batch_size: int,
    read: Callable[[Any, dict[str, Tensor]], Sequence[Tensor]],
    progress: str | None = None,
) -> list[Tensor]:
    """What `read` gives for each row of a batch, without dropout and gradients; a tensor for each row, in order.

    Rows of like length share a batch. `progress` labels a bar.
    """
    from dareu.models.progress import track

    out: dict[int, Tensor] = {}
    with evaluating(model):
        for numbers in track(by_length([len(row) for row in rows], batch_size), progress):
            batch = to_batch([rows[i] for i in numbers], pad_id, model.device)
            out |= dict(zip(numbers, read(model, batch), strict=True))
    return [out[i] for i in range(len(rows))]


def response_nll(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Encoded],
    *,
    batch_size: int,
    progress: str | None = None,
    include_eos: bool = True,
) -> list[tuple[float, int]]:
    """Summed negative log-likelihood (nats) of each response and its number of tokens, in the order given.

    The end-of-text token counts as in training unless `include_eos` is False. Batches: `length_batches`.
    """

    def score(chunk: Sequence[int]) -> list[tuple[float, int]]:
        batch = to_batch([pairs[i] for i in chunk], tokenizer.pad_token_id, model.device)
        if not include_eos:
            for row, i in enumerate(chunk):
                batch["labels"][row, len(pairs[i]) - 1] = IGNORE
        logps, mask = response_logprobs(model, batch)
        return [(-float(logps[row].sum()), int(mask[row].sum())) for row in range(len(chunk))]

    return each(model, length_batches(pairs, batch_size, vocabulary_of(model)), score, progress)


class TokenStatistics(NamedTuple):
    """One response under a model, token by token, each array (T,); the last token is end-of-text.

    `logps`: log p of the token, in nats, ≤ 0. `hits`: whether it is the likeliest one. `mean` and `std`: of log p over
    the vocabulary, weighted by p itself (what min-k %++ normalises by).
    """

    logps: np.ndarray
    hits: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def _of_tokens(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four parts of `TokenStatistics`, (N,) each, from logits (N, V) and targets (N)."""
    logps = logits.float().log_softmax(-1)
    weighted = logps.exp()
    mean = torch.where(weighted > 0, weighted * logps, 0).sum(-1)
    square = torch.where(weighted > 0, weighted * logps.square(), 0).sum(-1)
    std = (square - mean.square()).clamp(min=0).sqrt()
    return logps.gather(1, targets.unsqueeze(1)).squeeze(1), logps.argmax(-1) == targets, mean, std


def token_statistics(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Encoded],
    *,
    batch_size: int,
    progress: str | None = None,
) -> list[TokenStatistics]:
    """`TokenStatistics` of each pair's response, in their order, in one pass.

    Batches: `length_batches`.
    """

    def measure(chunk: Sequence[int]) -> list[TokenStatistics]:
        batch = to_batch([pairs[i] for i in chunk], tokenizer.pad_token_id, model.device)
        logits, targets, mask = response_logits(model, batch)
        rows = max(1, SLICE // logits.size(-1))
        slices = [_of_tokens(*pair) for pair in zip(logits.split(rows), targets.split(rows), strict=True)]
        parts = [torch.cat(part).cpu().numpy() for part in zip(*slices, strict=True)]
        counts = mask.sum(1).tolist()
        stops = np.cumsum(counts)
        return [
            TokenStatistics(*(part[start:stop].copy() for part in parts))
            for start, stop in zip(stops - counts, stops, strict=True)
        ]

    return each(model, length_batches(pairs, batch_size, vocabulary_of(model)), measure, progress)
