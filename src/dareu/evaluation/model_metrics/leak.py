"""Sampled leak: does a forgotten answer come out in k samples? Pure."""

from collections.abc import Sequence
from math import comb


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
