"""Metrics of fields that only a model can fill (`dareu.evaluation.model_metrics.fields`). No torch here."""

import math
from collections.abc import Sequence
from math import comb
from statistics import fmean
from typing import Any

from dareu.evaluation.metrics.base import Records, Values
from dareu.evaluation.metrics.rouge import exact_answer, rouge_recall
from dareu.evaluation.probes.base import mean_figures
from dareu.evaluation.probes.registry import PROBES, field_of


def best_of_k(scores: Sequence[float], k: int) -> float:
    """The expected best score of k of these n ≥ k samples, drawn without replacement: unbiased for best-of-k.

    With scores in ascending order s_1 ≤ … ≤ s_n it is Σ_i s_i · C(i − 1, k − 1) / C(n, k). For scores of 0 and 1 it is
    1 − C(n − c, k) / C(n, k), c the number of ones (pass@k of Chen et al. 2021). leak@k: arXiv 2511.04934.

    Args:
        scores: n numbers, such as ROUGE recalls or exact matches.
        k: 1 ≤ k ≤ n.

    Raises:
        ValueError: for another k.
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise ValueError(f"best of {k} needs at least {k} samples (and k ≥ 1); there are {n}")
    ranked = sorted(scores)
    return sum(score * comb(rank, k - 1) for rank, score in enumerate(ranked)) / comb(n, k)


def doublings(count: int) -> list[int]:
    """1, 2, 4, … up to `count`, and `count` itself; none for 0."""
    return sorted({2**i for i in range(count.bit_length()) if 2**i <= count} | {count} - {0})


def leak_exact(reference: str, sampled: Sequence[str]) -> float | None:
    """Whether the reference comes out word for word in any of the samples, 0 or 1."""
    return best_of_k([exact_answer(reference, s) for s in sampled], len(sampled)) if sampled else None


def leak_rouge(reference: str, sampled: Sequence[str]) -> float | None:
    """The best ROUGE-L recall of the samples, in [0, 1]."""
    scores = [score for s in sampled if (score := rouge_recall(reference, s)) is not None]
    return best_of_k(scores, len(scores)) if scores else None


def leak_curve(records: Records) -> dict[str, float]:
    """k → share of questions whose reference comes out word for word in k samples, unbiased; for each k there is."""
    hits = [
        [exact_answer(r["reference"], s) for s in r["sampled"]]
        for r in records
        if r.get("sampled") is not None
    ]
    most = min(len(one) for one in hits)
    return {str(k): fmean(best_of_k(one, k) for one in hits) for k in doublings(most)}


def lens_best(logps: Sequence[float]) -> float:
    """exp of the highest mean log p of the fact's tokens over all blocks: what any layer would say, in [0, 1]."""
    return math.exp(max(logps))


def lens_by_block(records: Records) -> list[float]:
    """Mean over samples of p (geometric mean over the fact's tokens) after each block, first to last."""
    rows = [r["logit_lens"] for r in records if r.get("logit_lens") is not None]
    return [fmean(math.exp(logp) for logp in column) for column in zip(*rows, strict=True)]


def probe_figures(records: Records) -> dict[str, dict[str, float]]:
    """Every figure of every probe that ran: probe → figure → mean over the forget samples that have it."""
    figures = {name: [r[field_of(name)] for r in records if r.get(field_of(name))] for name in PROBES}
    return {name: mean_figures(values) for name, values in figures.items() if values}


def probe_headline(records: Records, field: str, figure: str) -> Values:
    """The figure that the probe behind `field` shows first."""
    return [(record.get(field) or {}).get(figure) for record in records]


def probe_curves(records: Records, curves: dict[str, Any]) -> dict[str, Any]:
    """Probe and figure → points, as the probes gave them."""
    return curves
