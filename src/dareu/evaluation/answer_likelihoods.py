"""Likelihoods of reference, paraphrased and wrong answers, in one pass over all samples; and lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from dareu.data.corpus import Sample, Task
from dareu.data.render import Encoded, encode
from dareu.errors import DataError
from dareu.models.logprobs import response_nll

LOGITS = 2**27  # entries of one batch of logits: 512 MB in float32, whatever the vocabulary
UNLIMITED = 1 << 30


class Likelihood(NamedTuple):
    """Mean NLLs (nats a token) of one sample: of the reference, the paraphrased and the wrong answers.

    None where the number is not finite, or the sample has no such answer (that fits the model's context). Where it has
    wrong answers but no paraphrased one, the reference stands in.
    """

    nll: float | None
    paraphrased_nll: float | None
    wrong_nlls: list[float] | None


class Limit(NamedTuple):
    """Tokens of an answer: `wanted` = longest reference + 8, `room` = context after a prompt."""

    wanted: int
    room: int


def context_length(model: Any) -> int:
    """Tokens that the model can read, by its config; practically no limit where it names none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or UNLIMITED


def response_limit(model: Any, tokenizer: Any, samples: Sequence[Sample], task: Task) -> Limit:
    """How long answers to `samples` may get. `DataError` for a pair that does not fit the model's context."""
    context = context_length(model)
    rows = [encode(tokenizer, s.prompt, s.response, task, context) for s in samples]
    longest = max((len(row.response_ids) for row in rows), default=1) - 1  # without end-of-text
    prompt = max((len(row.prompt_ids) for row in rows), default=0)
    return Limit(longest + 8, context - prompt)


def likelihoods(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Sample],
    task: Task,
    *,
    batch_size: int,
    progress: str | None = None,
) -> list[Likelihood]:
    """The `Likelihood` of each sample, in order.

    NLLs are means over response tokens, end-of-text included as in training.
    """
    context = context_length(model)
    pairs: list[Encoded] = []
    spans: list[tuple[int, int]] = []  # per sample: the reference, the paraphrased and the wrong answers
    for sample in samples:
        start = len(pairs)
        pairs.append(encode(tokenizer, sample.prompt, sample.response, task, context))
        if sample.wrong_responses:
            others = [sample.paraphrased_response or sample.response, *sample.wrong_responses]
            with suppress(DataError):  # too long: the list is built whole before it is added
                pairs += [encode(tokenizer, sample.prompt, other, task, context) for other in others]
        spans.append((start, len(pairs)))
    if not pairs:
        return []
    width = max(len(pair) for pair in pairs)
    fits = LOGITS // (width * len(tokenizer)) or 1
    scored = response_nll(model, tokenizer, pairs, batch_size=min(batch_size, fits), progress=progress)
    nlls = [total / max(count, 1) for total, count in scored]
    return [_likelihood(nlls[start:stop]) for start, stop in spans]


def _likelihood(nlls: Sequence[float]) -> Likelihood:
    """From the mean NLLs of one sample: reference, paraphrased answer, wrong answers."""
    reference, *others = nlls
    right, *wrong = others or [math.nan]
    known = bool(wrong) and math.isfinite(right) and all(map(math.isfinite, wrong))
    return Likelihood(
        reference if math.isfinite(reference) else None,
        right if known else None,
        wrong if known else None,
    )
