"""The unlearned model beside the retrained one. Pure: summaries of the suite in, numbers out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dareu.errors import DataError
from dareu.evaluation.metrics.membership import privleak

Summary = Mapping[str, Any]

NO_RETRAINED = "there is no retrained model to compare with (retrain=false)"
OPTIONAL = ("unfinished", "broken")  # broken words need the texts of the corpus; logs may lack both
NO_TEST = "the corpus has no test set"


def _figure(summary: Summary, part: str, key: str) -> float:
    value = (summary.get(part) or {}).get(key)
    if value is None:
        missing = summary.get("missing", {})
        reason = missing.get(f"{part}.{key}") or missing.get(part) or "the summary does not hold it"
        raise DataError(f"{part}.{key} was not computed: {reason}.")
    return float(value)


def _closeness(u: Summary, r: Summary, part: str, key: str) -> float:
    return 1 - abs(_figure(u, part, key) - _figure(r, part, key))


def tug_of_war(u: Summary, r: Summary, with_test: bool = True) -> float:
    """Π_S (1 − |a_u(S) − a_r(S)|) over S in forget, retain and test, with a = ROUGE-L recall. In [0, 1], ↑.

    `u` unlearned, `r` retrained. Without test it is what tables call ToW*. Blind to broken text: read
    `retrain_similarity` with it. Zhao et al. 2024 (arXiv 2406.01257).

    Raises:
        DataError: A figure is missing.
    """
    sets = ("forget", "retain", "test") if with_test else ("forget", "retain")
    return math.prod(_closeness(u, r, name, "rouge_l") for name in sets)


def retrain_similarity(u: Summary, r: Summary) -> float:
    """Tug-of-War times 1 − |x_u − x_r| for five more figures of the forget answers.

    They are held-out attribution and the shares that are repetitive, empty, unfinished, or have a broken word. In [0,
    1], ↑; never above Tug-of-War. The figure to choose by. The factors of the test set, of unfinished answers and of
    broken words are left out where neither model has them. Our own.

    Raises:
        DataError: Another figure is missing.
    """
    tested = not (_lacks_test(u) and _lacks_test(r))
    factors = [("forget", "attribution_heldout"), ("text_health", "repetitive"), ("text_health", "empty")]
    factors += [("text_health", key) for key in OPTIONAL if any(_health(x, key) is not None for x in (u, r))]
    return tug_of_war(u, r, with_test=tested) * math.prod(_closeness(u, r, *factor) for factor in factors)


def _health(summary: Summary, key: str) -> Any:
    return (summary.get("text_health") or {}).get(key)


def _lacks_test(summary: Summary) -> bool:
    return (summary.get("test") or {}).get("rouge_l") is None


def forget_quality(u_ratios: Sequence[float], r_ratios: Sequence[float]) -> dict[str, float | bool]:
    """Two-sample Kolmogorov–Smirnov test of the truth ratios of the forget set, unlearned against retrained.

    Gives `statistic` (in [0, 1], 0 where the distributions are alike), `p` (in [0, 1], ↑, TOFU's forget
    quality), `log10_p`, `at_floor` and `log10_floor`. The floor, 2 / C(n + m, n), is all that two disjoint
    samples of n and m can give: it says "disjoint" and no more. Where p is too small for a float, `log10_p`
    is the first term of the Kolmogorov distribution. Source: TOFU
    (arXiv 2401.06121).

    Raises:
        DataError: A sample is empty.
    """
    from scipy.stats import ks_2samp

    n, m = len(u_ratios), len(r_ratios)
    if not n or not m:
        empty = "unlearned" if not n else "retrained"
        raise DataError(f"Forget quality needs truth ratios of both models; the {empty} model has none.")
    test = ks_2samp(u_ratios, r_ratios)
    statistic, p = float(test.statistic), float(test.pvalue)
    log_choose = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    log10_floor = min(0.0, (math.log(2) - log_choose) / math.log(10))
    at_floor = statistic > 1 - 1e-9
    if at_floor:
        log10_p = log10_floor
    elif p > 0:
        log10_p = math.log10(p)
    else:
        log10_p = (math.log(2) - 2 * n * m / (n + m) * statistic**2) / math.log(10)
    return {
        "statistic": statistic,
        "p": p,
        "log10_p": log10_p,
        "at_floor": at_floor,
        "log10_floor": log10_floor,
    }


def forget_quality_of(u: Summary, r: Summary) -> dict[str, float | bool]:
    """`forget_quality` of two summaries."""
    return forget_quality(u.get("truth_ratios", []), r.get("truth_ratios", []))


def privleak_of(u: Summary, r: Summary) -> float:
    """`privleak` of two summaries.

    Raises:
        DataError: One has no membership figures, or AUC_r is 1.
    """
    try:
        return privleak(_figure(u, "membership", "min_k_40"), _figure(r, "membership", "min_k_40"))
    except ValueError as error:
        raise DataError(f"PrivLeak: {error}.") from None


def compare(summaries: Mapping[str, Summary], suite: str = "fast") -> dict[str, Any]:
    """Every comparison of `summaries["unlearned"]` with `summaries["retrained"]`: the registry's rows of level "pair".

    A figure by name, None where it could not be computed, and `missing`: name → reason.

    Raises:
        DataError: where there is no unlearned model.
    """
    from dareu.evaluation.metrics.registry import metrics_of

    if "unlearned" not in summaries:
        raise DataError("There is no summary of the unlearned model to compare.", "Evaluate it first.")
    u, r = summaries["unlearned"], summaries.get("retrained")
    rows = [metric for metric in metrics_of(suite) if metric.level == "pair"]
    result: dict[str, Any] = dict.fromkeys(metric.name for metric in rows)
    if r is None:
        return result | {"missing": dict.fromkeys((metric.name for metric in rows), NO_RETRAINED)}
    missing: dict[str, str] = {}
    for metric in rows:
        try:
            result[metric.name] = metric.compute(u, r)
        except DataError as error:
            missing[metric.name] = error.cause
    if _lacks_test(u) and _lacks_test(r) and result.get("retrain_similarity") is not None:
        missing["retrain_similarity.test"] = f"{NO_TEST}, its factor is left out"
    return result | {"missing": missing}
