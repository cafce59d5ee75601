"""Likelihoods of reference, paraphrased and wrong answers, in one pass over all samples."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from dareu.data.corpus import Sample
from dareu.data.render import Encoded
from dareu.errors import DataError
from dareu.evaluation.model_metrics.token_scores import token_scores
from dareu.evaluation.subject import Subject
from dareu.models.logprobs import TokenStatistics, token_statistics

# What a record keeps of the reference's tokens: for memorisation and for membership attacks.
SCORES = (
    "hits", "mia_loss", "mia_zlib", "mia_min_k_20", "mia_min_k_40", "mia_min_k_plus_20",
    "mia_min_k_plus_40",
)  # fmt: skip


class Likelihood(NamedTuple):
    """Mean NLLs (nats a token) of one sample: of the reference, the paraphrased and the wrong answers.

    None where the number is not finite, or the sample has no such answer (that fits the model's context). Where it has
    wrong answers but no paraphrased one, the reference stands in.
    """

    nll: float | None
    paraphrased_nll: float | None
    wrong_nlls: list[float] | None
    scores: dict[str, Any]  # of the reference's tokens: `SCORES`


def likelihoods(subject: Subject, samples: Sequence[Sample]) -> list[Likelihood]:
    """The `Likelihood` of each sample, in order.

    NLLs are means over response tokens, end-of-text included as in training.
    """
    references = subject.references(samples)
    others: list[Encoded] = []
    spans: list[tuple[int, int]] = []  # per sample: the paraphrased and the wrong answers
    for sample in samples:
        start = len(others)
        if sample.wrong_responses:
            texts = [sample.paraphrased_response or sample.response, *sample.wrong_responses]
            with suppress(DataError):  # too long: none of them is added
                others += subject.pairs([sample.prompt] * len(texts), texts)
        spans.append((start, len(others)))
    if not references:
        return []
    statistics = token_statistics(
        subject.model,
        subject.tokenizer,
        references,
        batch_size=subject.batch_size,
        progress=subject.bar("likelihoods"),
    )
    nlls = [total / max(count, 1) for total, count in subject.nlls_of_shared(others)]
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
