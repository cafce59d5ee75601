"""Rewards from a similarity."""

from __future__ import annotations

from dareu.rewards.similarity import dissimilarity, helpfulness


def test_similarity_as_a_reward() -> None:
    assert [dissimilarity(s) for s in (0.0, 0.25, 1.0)] == [0.0, -0.25, -1.0]
    assert [helpfulness(s) for s in (0.0, 0.25, 1.0)] == [-1.0, -0.75, 0.0]
