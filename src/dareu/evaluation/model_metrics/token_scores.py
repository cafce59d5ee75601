"""Scores of one answer from its token statistics: memorisation and membership. Pure; numpy alone.

All of them leave the end-of-text token out, as open-unlearning does. Membership scores are higher for what the model
was trained on, so that an AUC above .5 says that forget samples look like members. An answer without a token has no
score: None.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

MIN_K = (0.2, 0.4)
_SMALLEST_STD = 1e-6


def extraction_strength(hits: np.ndarray) -> float | None:
    """1 − k/L, k the shortest prefix after which every token is the likeliest one given the true ones before it.

    Args:
        hits: (L,) bool. In [0, 1]; 1: all of it comes out, 0: the last token is missed already.

    Source: Carlini et al. 2021; as in Wang et al. 2025 and open-unlearning.
    """
    if not len(hits):
        return None
    missed = np.flatnonzero(~np.asarray(hits, dtype=bool))
    return 1.0 - (int(missed[-1]) + 1) / len(hits) if len(missed) else 1.0


def exact_memorisation(hits: np.ndarray) -> float | None:
    """Share of tokens that are the likeliest ones given the true ones before them, in [0, 1] (open-unlearning)."""
    return float(np.mean(hits)) if len(hits) else None


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


def token_scores(
    statistics: Sequence[np.ndarray], text: str, reference_loss: float | None = None
) -> dict[str, float | None]:
    """All scores of one answer.

    Args:
        statistics: `dareu.models.logprobs.TokenStatistics`, its last token the end-of-text token.
        text: the answer.
        reference_loss: the mean NLL of the same answer under a reference model (the retrained one, or the base).

    Returns:
        `loss` (mean NLL without end-of-text, nats), `nll` (with it, as in training), `probability` (exp(−nll)),
        `extraction_strength`, `exact_memorisation`; and the membership scores `mia_loss`, `mia_zlib`, `mia_min_k_20`,
        `mia_min_k_40`, `mia_min_k_plus_20`, `mia_min_k_plus_40`, `mia_reference` (None without a reference loss).
    """
    logps, hits, mean, std = (np.asarray(part)[:-1] for part in statistics)
    every = np.asarray(statistics[0], dtype=float)
    loss = float(-logps.mean()) if len(logps) else None
    nll = float(-every.mean()) if len(every) else math.nan
    scores: dict[str, float | None] = {
        "loss": loss,
        "nll": nll,
        "probability": math.exp(-nll),
        "extraction_strength": extraction_strength(hits),
        "exact_memorisation": exact_memorisation(hits),
        "mia_loss": None if loss is None else -loss,
        "mia_zlib": zlib_score(logps, text),
    }
    for share in MIN_K:
        percent = round(100 * share)
        scores[f"mia_min_k_{percent}"] = min_k(logps, share)
        scores[f"mia_min_k_plus_{percent}"] = min_k_plus(logps, mean, std, share)
    known = reference_loss is not None and loss is not None
    scores["mia_reference"] = reference_loss - loss if known else None  # type: ignore[operator]
    return {name: value if value is None or math.isfinite(value) else None for name, value in scores.items()}
