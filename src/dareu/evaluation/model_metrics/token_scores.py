"""Scores of one answer from its token statistics: memorisation and membership. Pure; numpy alone.

All of them leave the end-of-text token out, as open-unlearning does. Membership scores are higher for what the model
was trained on, so that an AUC above .5 says that forget samples look like members. An answer without a token has no
score: None.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np

MIN_K = (0.2, 0.4)
_SMALLEST_STD = 1e-6


def extraction_strength(hits: str) -> float | None:
    """1 − k/L, k the shortest prefix after which every token is the likeliest one given the true ones before it.

    Args:
        hits: "1" for each token that is the likeliest one, else "0". In [0, 1]; 1: all of it comes out, 0: the last
            token is missed already.

    Source: Carlini et al. 2021; as in Wang et al. 2025 and open-unlearning.
    """
    return 1 - (hits.rfind("0") + 1) / len(hits) if hits else None


def exact_memorisation(hits: str) -> float | None:
    """Share of tokens that are the likeliest ones given the true ones before them, in [0, 1] (open-unlearning)."""
    return hits.count("1") / len(hits) if hits else None


def lowest_mean(values: np.ndarray, share: float) -> float | None:
    """Mean of the lowest `share` of the values (at least one of them): the core of min-k %."""
    if not len(values):
        return None
    count = max(1, int(len(values) * share))
    return float(np.sort(values)[:count].mean())


def min_k(logps: np.ndarray, share: float) -> float | None:
    """Mean log p of the `share` least likely tokens, in nats, ≤ 0. Shi et al. 2024 (arXiv 2310.16789)."""
    return lowest_mean(logps, share)


def min_k_plus(logps: np.ndarray, mean: np.ndarray, std: np.ndarray, share: float) -> float | None:
    """min-k %++: the same of (log p − μ)/σ, both over the vocabulary there. Zhang et al. 2024 (arXiv 2404.02936)."""
    return lowest_mean((logps - mean) / np.maximum(std, _SMALLEST_STD), share)


def zlib_score(logps: np.ndarray, text: str) -> float | None:
    """Mean log p over the length of the compressed text in bytes, ≤ 0. Carlini et al. 2021 (arXiv 2012.07805)."""
    return float(np.mean(logps)) / len(zlib.compress(text.encode())) if len(logps) else None


def token_scores(statistics: Sequence[np.ndarray], text: str) -> dict[str, float | None]:
    """All scores of one answer.

    Args:
        statistics: `dareu.models.logprobs.TokenStatistics`, its last token the end-of-text token.
        text: the answer.

    Returns:
        `nll` (the mean, in nats, with end-of-text as in training) and the membership scores `mia_loss` (minus the mean
        NLL without end-of-text), `mia_zlib`, `mia_min_k_20`, `mia_min_k_40`, `mia_min_k_plus_20`, `mia_min_k_plus_40`.
        None where one is not finite.
    """
    logps, _, mean, std = (np.asarray(part)[:-1] for part in statistics)
    every = np.asarray(statistics[0], dtype=float)
    scores: dict[str, float | None] = {
        "nll": float(-every.mean()) if len(every) else None,
        "mia_loss": float(logps.mean()) if len(logps) else None,
        "mia_zlib": zlib_score(logps, text),
    }
    for share in MIN_K:
        percent = round(100 * share)
        scores[f"mia_min_k_{percent}"] = min_k(logps, share)
        scores[f"mia_min_k_plus_{percent}"] = min_k_plus(logps, mean, std, share)
    return {name: value if value is None or math.isfinite(value) else None for name, value in scores.items()}
