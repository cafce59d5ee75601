"""Rewards from the similarity of two answers, a number in [0, 1] that the caller measured (ROUGE-L)."""

from __future__ import annotations


def dissimilarity(similarity: float) -> float:
    """−similarity to the true answer: DeMem (Kassem et al. 2023). Range [−1, 0]."""
    return -similarity


def helpfulness(similarity: float) -> float:
    """similarity to the original's own answer, minus 1, so that an answer kept costs nothing. Range [−1, 0]."""
    return similarity - 1.0
