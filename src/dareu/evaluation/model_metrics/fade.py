"""FADE: how far two models are apart as distributions over answers, from each one's own samples.

Functional Alignment for Distributional Equivalence (arXiv 2510.12981) compares what each model thinks of the other's
samples with what it thinks of its own: a symmetric Kullback–Leibler divergence of the answers' distributions. Here: the
mean of the two directions, estimated from samples, in nats a token, so that answers of any length compare. Checked
against the paper's abstract ("bidirectional likelihood assignments over generated samples"), its authors' pages of
published checkpoints (a KL divergence of what both models generate) and its public reviews (OpenReview WbV6w9R2Ox: the
symmetric KL divergence of both models' distributions, from samples drawn by top-k or nucleus sampling; here at
temperature 1 without a cut, which the estimate of a KL divergence needs). Its formula and code were not at hand. Its
scale may differ by a constant and by the answers' length: compare figures of one implementation.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dareu.data.corpus import Sample
from dareu.data.render import Encoded, end_token
from dareu.evaluation.subject import Subject


class OwnSamples(NamedTuple):
    """Samples of one model: token ids with their prompts, the log-likelihood of each under the model itself, and which
    query each answers (its place)."""

    pairs: list[Encoded]
    logps: list[float]
    queries: list[int]


def fade_distance(
    own_a: Sequence[float],
    cross_a: Sequence[float],
    tokens_a: Sequence[int],
    own_b: Sequence[float],
    cross_b: Sequence[float],
    tokens_b: Sequence[int],
) -> float:
    """½ · [ Σ(log a(y) − log b(y)) / Σ|y| over a's samples + Σ(log b(y) − log a(y)) / Σ|y| over b's samples ].

    An estimate of the symmetrised KL divergence, nats a token: 0 for equal models, larger is further apart. With few
    samples it may fall a little below 0. Symmetric in a and b.

    Args:
        own_a, cross_a: log-likelihoods (sums over tokens) of a's samples under a and under b.
        tokens_a: their numbers of tokens. The same for b, with `cross_b` under a.

    Raises:
        ValueError: where either model has no sampled token.
    """
    if not sum(tokens_a) or not sum(tokens_b):
        raise ValueError("FADE needs samples of both models")
    one = sum(o - c for o, c in zip(own_a, cross_a, strict=True)) / sum(tokens_a)
    other = sum(o - c for o, c in zip(own_b, cross_b, strict=True)) / sum(tokens_b)
    return (one + other) / 2


def own_samples(subject: Subject, queries: Sequence[Sample], count: int, seed: int) -> OwnSamples:
    """`count` samples of each query at temperature 1, with their log-likelihoods. Samples without a token are left
    out where they did not end either."""
    answers = subject.samples(queries, count, 1.0, seed)
    prompts = subject.rendered([query.prompt for query in queries])
    end = end_token(subject.tokenizer, subject.task)
    pairs, places = [], []
    for place, (prompt, of_query) in enumerate(zip(prompts, answers, strict=True)):
        prompt_ids = list(subject.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        for answer in of_query:
            ids = [*answer.ids, *([end] if answer.finished else [])]
            if ids:
                pairs.append(Encoded(prompt_ids, ids))
                places.append(place)
    return OwnSamples(pairs, likelihoods_of(subject, pairs), places)


def likelihoods_of(subject: Subject, pairs: Sequence[Encoded]) -> list[float]:
    """log p of each response (sum over its tokens, nats)."""
    return [-total for total, _ in subject.nlls(pairs)]


def by_query(
    own: OwnSamples,
    cross: Sequence[float],
    other: OwnSamples,
    other_cross: Sequence[float],
    count: int,
) -> list[float | None]:
    """`fade_distance` on each of `count` queries; None where one of the models has no sample of it.

    Args:
        own, other: samples of the two models.
        cross: log-likelihoods of `own`'s samples under the other model; `other_cross` of the other's under the first.
            Computed by `likelihoods_of`, so that only one model has to be in memory at a time.
    """

    def rows_of(
        samples: OwnSamples, under: Sequence[float], query: int
    ) -> tuple[list[float], list[float], list[int]]:
        mine = [i for i, q in enumerate(samples.queries) if q == query]
        lengths = [len(samples.pairs[i].response_ids) for i in mine]
        return [samples.logps[i] for i in mine], [under[i] for i in mine], lengths

    distances: list[float | None] = []
    for query in range(count):
        ours, theirs = rows_of(own, cross, query), rows_of(other, other_cross, query)
        distances.append(fade_distance(*ours, *theirs) if ours[2] and theirs[2] else None)
    return distances
