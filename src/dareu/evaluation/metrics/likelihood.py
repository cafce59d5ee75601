"""Figures from negative log-likelihoods. Every NLL here is a mean over response tokens, in nats. Pure.

Source of all: TOFU (arXiv 2401.06121). They are computed in logarithms: an NLL in the thousands, as a model
that fell apart has, gives a very small or very large number, neither an overflow nor a division by zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Mean = Literal["arithmetic", "geometric"]
_LARGEST = 700.0  # e^±700 is still a normal float


def _log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(v - top) for v in values))


def _exp(value: float) -> float:
    return math.exp(min(max(value, -_LARGEST), _LARGEST))


def probability(nll: float) -> float:
    """exp(−NLL): the geometric mean of the token probabilities of an answer. In [0, 1]."""
    return math.exp(-nll)


def normalised_probability(nll: float, wrong_nlls: Sequence[float]) -> float:
    """p / (p + Σ_j p_wrong_j), for multiple-choice sets. In [0, 1]; 1 without wrong answers."""
    return math.exp(-nll - _log_sum_exp([-nll, *(-w for w in wrong_nlls)]))


def truth_ratio(paraphrase_nll: float, wrong_nlls: Sequence[float], mean: Mean = "arithmetic") -> float:
    """R = mean_j exp(−NLL(wrong_j)) / exp(−NLL(paraphrased answer)). In (0, ∞); below 1 truth is likelier.

    `mean` over the wrong answers: "arithmetic" is TOFU's definition, "geometric" is exp(−mean_j NLL_j), as
    open-unlearning has it; it is never the larger of the two. R stays within e^±700, so that 1/R is finite.
    `ValueError` for no wrong answer.
    """
    if not wrong_nlls:
        raise ValueError("the truth ratio needs at least one wrong answer")
    if mean == "arithmetic":
        log_wrong = _log_sum_exp([-w for w in wrong_nlls]) - math.log(len(wrong_nlls))
    else:
        log_wrong = -math.fsum(wrong_nlls) / len(wrong_nlls)
    return _exp(log_wrong + paraphrase_nll)


def forget_truth_ratio(ratios: Sequence[float]) -> float:
    """mean min(R, 1/R) over the forget set: 1 where truth and falsehood are equally likely. In [0, 1].

    Read beside the retrained model's. `ValueError` for no ratios.
    """
    return _mean([min(r, 1 / r) for r in ratios])


def other_truth_ratio(ratios: Sequence[float]) -> float:
    """mean max(0, 1 − R) over any other set. In [0, 1], higher is better. `ValueError` for no ratios."""
    return _mean([max(0.0, 1 - r) for r in ratios])


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no truth ratios to average")
    return math.fsum(values) / len(values)
