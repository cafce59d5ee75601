"""Likelihoods of reference, paraphrased and wrong answers, in one pass over all samples; and lengths."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from dareu.data.corpus import Sample, Task
from dareu.data.render import Encoded, encode
from dareu.errors import DataError
from dareu.evaluation.model_metrics.token_scores import token_scores
from dareu.models.logprobs import TokenStatistics, rows_that_fit, token_statistics, vocabulary_of
from dareu.models.shared_prompts import shared_prompt_nll

UNLIMITED = 1 << 30
# What a record keeps of the reference's tokens: for memorisation and for membership attacks.
SCORES = (
    "hits",
    "mia_loss",
    "mia_zlib",
    "mia_min_k_20",
    "mia_min_k_40",
    "mia_min_k_plus_20",
    "mia_min_k_plus_40",
)


class Likelihood(NamedTuple):
    """Mean NLLs (nats a token) of one sample: of the reference, the paraphrased and the wrong answers.

    None where the number is not finite, or the sample has no such answer (that fits the model's context). Where it has
    wrong answers but no paraphrased one, the reference stands in.
    """

    nll: float | None
    paraphrased_nll: float | None
    wrong_nlls: list[float] | None
    scores: dict[str, Any]  # of the reference's tokens: `SCORES`


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
    references = [encode(tokenizer, s.prompt, s.response, task, context) for s in samples]
    others: list[Encoded] = []
    spans: list[tuple[int, int]] = []  # per sample: the paraphrased and the wrong answers
    for sample in samples:
        start = len(others)
        if sample.wrong_responses:
            texts = [sample.paraphrased_response or sample.response, *sample.wrong_responses]
            with suppress(DataError):  # too long: the list is built whole before it is added
                others += [encode(tokenizer, sample.prompt, text, task, context) for text in texts]
        spans.append((start, len(others)))
    if not references:
        return []
    statistics = token_statistics(model, tokenizer, references, batch_size=batch_size, progress=progress)
    fits = rows_that_fit(others, batch_size, vocabulary_of(model))
    scored = shared_prompt_nll(model, tokenizer, others, batch_size=fits, progress=progress) if others else []
    nlls = [total / max(count, 1) for total, count in scored]
    return [
        _likelihood(one, sample.response, nlls[start:stop])
        for one, sample, (start, stop) in zip(statistics, samples, spans, strict=True)
    ]


def _likelihood(statistics: TokenStatistics, text: str, others: Sequence[float]) -> Likelihood:
    """From the tokens of one reference, and the mean NLLs of its paraphrased and wrong answers."""
    right, *wrong = others or [math.nan]
    known = bool(wrong) and math.isfinite(right) and all(map(math.isfinite, wrong))
    scores = token_scores(statistics, text)
    hits = "".join("1" if hit else "0" for hit in statistics.hits[:-1])
    finite = scores["nll"] is not None
    return Likelihood(
        scores["nll"],
        right if known else None,
        wrong if known else None,
        {
            "hits": (hits or None) if finite else None,
            **{name: scores[name] for name in SCORES if name != "hits"},
        },
    )
