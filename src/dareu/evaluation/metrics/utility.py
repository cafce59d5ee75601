"""Model utility (TOFU): one number for what should stay. Pure."""

from collections.abc import Mapping
from typing import Any

SETS = ("retain", "real_authors", "world_facts")
FIGURES = ("probability", "rouge_l", "truth_ratio")


def harmonic_mean(values: list[float]) -> float:
    """n / Σ 1/x, of numbers ≥ 0; 0 where one is 0. `ValueError` for none."""
    if not values:
        raise ValueError("no figures to average")
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def utility_parts(summary: Mapping[str, Any]) -> tuple[list[float], list[str]]:
    """The figures of `SETS` × `FIGURES` that the summary has, and the paths of those it has not."""
    found, missing = [], []
    for of in SETS:
        for key in FIGURES:
            value = (summary.get(of) or {}).get(key)
            if value is None:
                missing.append(f"{of}.{key}")
            else:
                found.append(float(value))
    return found, missing


def model_utility(summary: Mapping[str, Any]) -> float:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio on retain, real authors and world facts.

    In [0, 1], ↑. Probabilities of the two multiple-choice sets are normalised. Source: TOFU (arXiv 2401.06121).

    Raises:
        ValueError: where one of the nine is missing; it is named.
    """
    found, missing = utility_parts(summary)
    if missing:
        raise ValueError(f"model utility needs nine figures; missing: {', '.join(missing)}")
    return harmonic_mean(found)
