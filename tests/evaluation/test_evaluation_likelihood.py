"""Probability and truth ratio from likelihoods that are round numbers."""

from __future__ import annotations

import math

import pytest

from dareu.evaluation.metrics.likelihood import (
    log_contribution,
    normalised_probability,
    probability,
    truth_contribution,
    truth_ratio,
)

HALF, QUARTER, EIGHTH = math.log(2), math.log(4), math.log(8)


def test_probability() -> None:
    assert probability(0.0) == 1.0
    assert probability(QUARTER) == pytest.approx(0.25)
    assert probability(5000.0) == 0.0


def test_normalised_probability() -> None:
    # 1/2 over 1/2 + 1/4 + 1/4
    assert normalised_probability(HALF, [QUARTER, QUARTER]) == pytest.approx(0.5)
    assert normalised_probability(HALF, []) == pytest.approx(1.0)
    # both probabilities are 0 as floats; their ratio is still 4 to 1
    assert normalised_probability(5000.0, [5000.0 + QUARTER]) == pytest.approx(0.8)


def test_truth_ratio_with_both_means() -> None:
    # wrong 1/2 and 1/8, paraphrase 1/4: (5/16) / (1/4) = 1.25, and sqrt(1/16) / (1/4) = 1
    assert truth_ratio(QUARTER, [HALF, EIGHTH], mean="arithmetic") == pytest.approx(1.25)
    assert truth_ratio(QUARTER, [HALF, EIGHTH]) == pytest.approx(1.0)


def test_truth_ratio_of_a_broken_model_stays_a_number() -> None:
    high, low = truth_ratio(9000.0, [1.0]), truth_ratio(1.0, [9000.0, 8000.0])
    assert math.isfinite(high) and high > 1e300
    assert 0 < low < 1e-300
    assert truth_contribution(high, "forget") == pytest.approx(0.0)
    assert truth_ratio(9000.0, [9000.0 + HALF, 9000.0 + HALF]) == pytest.approx(0.5)


def test_truth_ratio_needs_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="wrong answer"):
        truth_ratio(1.0, [])


def test_what_a_sample_adds_to_the_truth_ratio() -> None:
    ratios = [0.5, 4.0, 1.0]
    assert [truth_contribution(r, "forget") for r in ratios] == [0.5, 0.25, 1.0]
    assert [truth_contribution(r, "retain") for r in ratios] == [0.5, 0.0, 0.0]
    assert [log_contribution(r, "forget") for r in ratios] == pytest.approx([-HALF, 2 * HALF, 0.0])
