"""Where in the network a fact stands: the logit lens, and depth by activation patching.

Both look at a span of each answer: the tokens that hold the fact. They work for any decoder whose blocks
`dareu.models.layers` finds (Llama, Qwen, Phi, GPT-NeoX and their kin).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dareu.data.corpus import Sample
from dareu.data.render import Encoded, response_text
from dareu.data.words import words
from dareu.errors import ModelError
from dareu.evaluation.subject import Subject
from dareu.models.layers import block_outputs, cut_after, find_blocks, patched_block
from dareu.models.logprobs import IGNORE, length_batches, response_logits, to_batch, vocabulary_of
from dareu.models.patched_passes import goes_on_alone, patched_passes, where_predicted

# Nats: the least loss by the retrained model's states that marks a block as holding the fact.
LEAST_DELTA = 0.05


class Span(NamedTuple):
    """A pair and the tokens of its response that hold the fact: `start` ≤ position < `stop`."""

    pair: Encoded
    start: int
    stop: int


def fact_text(prompt: str, response: str, wrong_responses: Sequence[str] = ()) -> str | None:
    """The part of an answer that holds the fact, found by comparison; None where nothing is left.

    From the first to the last word that stands neither in the question nor in any of the wrong answers (which repeat
    the frame of the answer and change the fact). A stand-in for facts marked by hand (`Sample.fact`): of the 367 of
    TOFU's forget10, 91 % lie within it, and a quarter of its characters are theirs.
    """
    known = set(words(prompt)).union(*(words(wrong) for wrong in wrong_responses))
    pieces = response.split()
    held = [i for i, piece in enumerate(pieces) if (own := words(piece)) and not known.issuperset(own)]
    if not held:
        return None
    return " ".join(pieces[held[0] : held[-1] + 1])


def fact_span(subject: Subject, sample: Sample) -> Span | None:
    """The tokens of the sample's marked fact, else of `fact_text`, within its answer; None where it is not there.

    A token counts where any character of the fact lies in it.
    """
    (pair,), tokenizer = subject.references([sample]), subject.tokenizer
    text = response_text(tokenizer, sample.response, subject.task)
    fact = sample.fact or fact_text(sample.prompt, sample.response, sample.wrong_responses)
    begin = text.find(fact.strip()) if fact else -1
    if fact is None or begin < 0:
        return None
    end = begin + len(fact.strip())
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    inside = [i for i, (low, high) in enumerate(offsets) if high > begin and low < end]
    return Span(pair, inside[0], inside[-1] + 1) if inside else None


def _batches(
    subject: Subject, spans: Sequence[Span]
) -> Iterator[tuple[list[int], dict[str, Tensor], Tensor]]:
    """Indices, a batch whose labels are those of the spans alone, and the positions (B, T) that predict them."""
    model, pairs = subject.model, [span.pair for span in spans]
    for chunk in length_batches(pairs, subject.batch_size, vocabulary_of(model)):
        batch = to_batch([pairs[i] for i in chunk], subject.tokenizer.pad_token_id, model.device)
        labels = torch.full_like(batch["labels"], IGNORE)
        for row, i in enumerate(chunk):
            first = len(pairs[i].prompt_ids)
            inside = slice(first + spans[i].start, first + spans[i].stop)
            labels[row, inside] = batch["input_ids"][row, inside]
        spanned = batch | {"labels": labels}
        yield chunk, spanned, where_predicted(spanned)


def _means(logits: Tensor, targets: Tensor, mask: Tensor) -> list[float]:
    """Mean log p of the counted tokens of each row."""
    logps = -F.cross_entropy(logits.float(), targets, reduction="none")
    rows = mask.nonzero()[:, 0]
    sums = torch.zeros(mask.size(0), device=logps.device).index_add_(0, rows, logps)
    return (sums / mask.sum(1).clamp(min=1)).tolist()


@torch.no_grad()
def span_logprobs(subject: Subject, spans: Sequence[Span]) -> np.ndarray:
    """Mean log p of each span's tokens, nats, shape (n,)."""
    result = np.zeros(len(spans))
    for chunk, batch, _ in _batches(subject, spans):
        result[chunk] = _means(*response_logits(subject.model, batch))
    return result


@torch.no_grad()
def span_states(subject: Subject, spans: Sequence[Span]) -> list[Tensor]:
    """Each span's hidden states after every block: (blocks, tokens of the span, d), on the CPU.

    At the positions that predict the span's tokens, so the first is the one before the span.
    """
    result: list[Tensor] = [torch.empty(0)] * len(spans)
    for chunk, batch, where in _batches(subject, spans):
        with block_outputs(subject.model) as outputs:
            response_logits(subject.model, batch)
        for row, i in enumerate(chunk):
            result[i] = torch.stack([states[row][where[row]] for states in outputs]).cpu()
    return result


@torch.no_grad()
def logit_lens(subject: Subject, spans: Sequence[Span]) -> np.ndarray:
    """Mean log p of each span's tokens, nats, read off after every block: (n, blocks); the last is the model's own.

    The model's final norm and head are applied to the hidden states of each block (nostalgebraist 2020): they stand
    in for the output of the first block, after which the pass goes straight to the norm.
    """
    model, count = subject.model, len(find_blocks(subject.model)[1])
    result = np.zeros((len(spans), count))
    for chunk, batch, _ in _batches(subject, spans):
        with block_outputs(model) as outputs:
            response_logits(model, batch)
        every = torch.ones_like(batch["input_ids"], dtype=torch.bool)
        for index, states in enumerate(outputs):
            with patched_block(model, 0, every, states.flatten(0, 1)), cut_after(model, 0):
                result[chunk, index] = _means(*response_logits(model, batch))
    return result


@torch.no_grad()
def patched_logprobs(subject: Subject, spans: Sequence[Span], states: Sequence[Tensor]) -> np.ndarray:
    """Mean log p of each span's tokens where `states` of another model stand in after one block: (n, blocks).

    Args:
        states: `span_states` of the other model for the same spans.

    Raises:
        ModelError: where the other model has another number of blocks or another width.
    """
    model, count = subject.model, len(find_blocks(subject.model)[1])
    width = model.config.get_text_config().hidden_size
    for one in states:
        if one.shape[0] != count or one.shape[-1] != width:
            raise ModelError(
                f"States of {one.shape[0]} blocks of width {one.shape[-1]} cannot stand in for those of a model of "
                f"{count} blocks of width {width}.",
                "Depth compares models that were fine-tuned from one base.",
            )
    result = np.zeros((len(spans), count))
    short: bool | None = None
    for chunk, batch, _ in _batches(subject, spans):
        theirs = [states[i] for i in chunk]
        if short is None:
            short = goes_on_alone(model, {name: values[:1] for name, values in batch.items()}, theirs[:1])
        for index, logits in enumerate(patched_passes(model, batch, theirs, short)):
            result[chunk, index] = _means(*logits)
    return result


def depth(
    own: np.ndarray, by_retrained: np.ndarray, by_unlearned: np.ndarray, least: float = LEAST_DELTA
) -> list[float | None]:
    """Unlearning depth of each sample, in [0, 1]: 1 erased as in the retrained model, 0 still there in every block.

    With Δ_l the loss of mean log p when another model's states stand in after block l of the original:
    Σ_l Δ_l(retrained) · clip(Δ_l(unlearned) / Δ_l(retrained), 0, 1) / Σ_l Δ_l(retrained), over the blocks with
    Δ_l(retrained) > `least`. None where there is no such block. Pure. Source: arXiv 2605.24614.

    Args:
        own: (n,) the original's own mean log p.
        by_retrained, by_unlearned: (n, blocks) with that model's states (`patched_logprobs`).
    """
    lost = np.asarray(own)[:, None] - np.asarray(by_retrained)
    also = np.asarray(own)[:, None] - np.asarray(by_unlearned)
    scores: list[float | None] = []
    for one, two in zip(lost, also, strict=True):
        held = one > least
        scores.append(float(np.clip(two[held], 0, one[held]).sum() / one[held].sum()) if held.any() else None)
    return scores
