"""Figures from negative log-likelihoods. Every NLL here is a mean over response tokens, in nats. Pure.

Source of all: TOFU (arXiv 2401.06121). They are computed in logarithms: an NLL in the thousands, as a model
that fell apart has, gives a very small or very large number, neither an overflow nor a division by zero.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dareu.evaluation.metrics.base import Records, Values

Mean = Literal["arithmetic", "geometric", "open-unlearning"]
MULTIPLE_CHOICE = ("real_authors", "world_facts")  # probability is normalised over the wrong answers
# Of what model utility is the mean.
UTILITY = [
    f"{of}.{key}" for of in ("retain", *MULTIPLE_CHOICE) for key in ("probability", "rouge_l", "truth_ratio")
]
EPSILON = 1e-10  # open-unlearning adds it to each denominator
_LARGEST = 700.0  # e^±700 is still a normal float


def _log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(v - top) for v in values))


def _exp(value: float) -> float:
    return math.exp(min(max(value, -_LARGEST), _LARGEST))


def probability(nll: float) -> float:
    """exp(−NLL): the geometric mean of the token probabilities of an answer. In [0, 1]."""
    return math.exp(-nll)


def normalised_probability(nll: float, wrong_nlls: Sequence[float], epsilon: float = 0.0) -> float:
    """p / (p + Σ_j p_wrong_j), for multiple-choice sets. In [0, 1]; 1 without wrong answers.

    `epsilon` is added to the denominator: 1e-10 in open-unlearning, which matters where all of them are very unlikely.
    """
    if epsilon:
        p = math.exp(-nll)
        return p / (math.fsum([p, *(math.exp(-w) for w in wrong_nlls)]) + epsilon)
    return math.exp(-nll - _log_sum_exp([-nll, *(-w for w in wrong_nlls)]))


def truth_ratio(paraphrase_nll: float, wrong_nlls: Sequence[float], mean: Mean = "geometric") -> float:
    """R of one sample: the likelihood of wrong answers over that of the paraphrased right one.

    In (0, ∞); below 1 the truth is likelier. `mean` is how the wrong answers are averaged:
        "geometric": exp(−mean_j NLL_j), as in the released code of TOFU and in the published figures.
        "arithmetic": mean_j exp(−NLL_j), as in the paper of TOFU; never smaller than the geometric one.
        "open-unlearning": geometric, with 1e-10 added to the denominator.

    R stays within e^±700, so that 1/R is finite.

    Raises:
        ValueError: for no wrong answer.
    """
    if not wrong_nlls:
        raise ValueError("the truth ratio needs at least one wrong answer")
    if mean == "arithmetic":
        log_wrong = _log_sum_exp([-w for w in wrong_nlls]) - math.log(len(wrong_nlls))
    else:
        log_wrong = -math.fsum(wrong_nlls) / len(wrong_nlls)
    if mean == "open-unlearning":
        return _exp(log_wrong - _log_sum_exp([-paraphrase_nll, math.log(EPSILON)]))
    return _exp(log_wrong + paraphrase_nll)


def truth_contribution(ratio: float, of: str) -> float:
    """What one sample adds to the truth ratio of set `of`: min(R, 1/R) on the forget set, else max(0, 1 − R)."""
    return min(ratio, 1 / ratio) if of == "forget" else max(0.0, 1 - ratio)


def log_contribution(ratio: float, of: str) -> float:
    """ln R, in nats, what one sample adds to the mean of logarithms of set `of`; R > 0. In [−700, 700]."""
    return math.log(ratio)


def truth_ratios(records: Records, truth_ratio_mean: Mean) -> Values:
    """R of each record with `wrong_nlls`; where there is no `paraphrased_nll` the reference's NLL stands in."""
    values: Values = []
    for record in records:
        wrong, right = record.get("wrong_nlls"), record.get("paraphrased_nll")
        right = record.get("nll") if right is None else right
        if not wrong or right is None or not all(map(math.isfinite, (right, *wrong))):
            values.append(None)
        else:
            values.append(truth_ratio(right, wrong, truth_ratio_mean))
    return values


def probabilities(records: Records, truth_ratio_mean: Mean = "geometric") -> Values:
    """exp(−NLL) of each reference; of multiple choice (by kind or set) `normalised_probability`."""
    epsilon = EPSILON if truth_ratio_mean == "open-unlearning" else 0.0
    values: Values = []
    for record in records:
        nll, wrong = record.get("nll"), record.get("wrong_nlls")
        if nll is None or not math.isfinite(nll):
            values.append(None)
        elif (record.get("kind") == "choice" or record.get("set") in MULTIPLE_CHOICE) and wrong:
            values.append(normalised_probability(nll, wrong, epsilon))
        else:
            values.append(probability(nll))
    return values


def normalised_probabilities(records: Records, truth_ratio_mean: Mean = "geometric") -> Values:
    """`normalised_probability` of each reference; None without wrong answers, or where a likelihood is not finite."""
    epsilon = EPSILON if truth_ratio_mean == "open-unlearning" else 0.0
    values: Values = []
    for record in records:
        nll, wrong = record.get("nll"), record.get("wrong_nlls")
        if nll is None or not wrong or not all(map(math.isfinite, (nll, *wrong))):
            values.append(None)
        else:
            values.append(normalised_probability(nll, wrong, epsilon))
    return values


def model_utility(summary: Mapping[str, Any]) -> float:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio on retain, real authors and world facts.

    In [0, 1], ↑; 0 where one of them is 0. Probabilities of the two multiple-choice sets are normalised.

    Raises:
        ValueError: where one of the nine is missing; it is named.
    """
    places = [path.split(".") for path in UTILITY]
    figures = {".".join(at): (summary.get(at[0]) or {}).get(at[1]) for at in places}
    missing = [path for path, figure in figures.items() if figure is None]
    if missing:
        raise ValueError(f"model utility needs nine figures; missing: {', '.join(missing)}")
    values = [float(figure) for figure in figures.values() if figure is not None]
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)
