"""Temperature, calibration error, and the report on held-out responses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dareu.attribution.heldout import heldout_report, quarters
from dareu.attribution.score import expected_calibration_error, fit_temperature, negative_log_likelihood
from dareu.data.corpus import Sample
from dareu.errors import DataError


def two_class(margin: float, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that favour class 0 by `margin`, of which `right` rows are class 0 and `wrong` are class 1."""
    logits = np.tile([margin, 0.0], (right + wrong, 1))
    return logits, np.array([0] * right + [1] * wrong)


@pytest.mark.parametrize("margin", [4.0, 0.5])  # over-confident, under-confident
def test_temperature_by_hand(margin: float) -> None:
    # 3 of 4 right: the optimum is sigmoid(margin / T) = 3/4, so T = margin / ln 3
    assert fit_temperature(*two_class(margin, 3, 1)) == pytest.approx(margin / math.log(3), rel=1e-4)


def test_temperature_stays_within_bounds() -> None:
    assert fit_temperature(*two_class(4.0, 4, 0)) == pytest.approx(0.25, rel=1e-3)  # likelihood alone: T → 0
    assert fit_temperature(*two_class(4.0, 0, 4)) == pytest.approx(10.0, rel=1e-3)  # all wrong: T → ∞
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 1.0


def test_negative_log_likelihood_by_hand() -> None:
    # softmax(ln 3, 0) = (3/4, 1/4)
    logits = np.array([[math.log(3), 0.0], [math.log(3), 0.0]])
    want = (math.log(4 / 3) + math.log(4)) / 2
    assert negative_log_likelihood(logits, np.array([0, 1])) == pytest.approx(want)


def test_calibration_error_by_hand() -> None:
    # bin [.9, 1): 2 rows, accuracy 1/2, confidence .95, gap .45; bin [.6, .7): 2 rows, accuracy 1, gap .35
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]])
    labels = np.array([0, 1, 0, 1])
    assert expected_calibration_error(probs, labels, bins=10) == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)
    # one bin [.5, 1): accuracy 3/4, mean confidence .8, and the gaps of its rows cancel
    assert expected_calibration_error(probs, labels, bins=2) == pytest.approx(0.05)


def test_calibration_error_edges() -> None:
    perfect = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(perfect, np.array([0, 0, 0, 1])) == pytest.approx(0.0)
    sure = np.array([[1.0, 0.0]])  # confidence 1 belongs to the last bin
    assert expected_calibration_error(sure, np.array([1])) == pytest.approx(1.0)
    assert math.isnan(expected_calibration_error(np.zeros((0, 2)), np.zeros(0, dtype=int)))


@pytest.mark.parametrize(
    ("length", "want"),
    [(4, [0, 1, 2, 3]), (8, [0, 0, 1, 1, 2, 2, 3, 3]), (5, [0, 1, 2, 3, 3]), (1, [3]), (2, [1, 3])],
)
def test_quarters(length: int, want: list[int]) -> None:
    assert quarters(length).tolist() == want  # token k ends at k/length; the whole response in the 4th


class Fixed:
    """A token a digit, with a margin of 2 for the class it names; whole texts score as their last."""

    owners = ["a", "b"]
    nobody = False
    temperature = 1.0

    def position_logits(self, texts: Sequence[str]) -> list[torch.Tensor]:
        return [
            torch.tensor([[2.0, 0.0] if c == "0" else [0.0, 2.0] for c in text]).reshape(-1, 2)
            for text in texts
        ]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        return np.array(
            [[0.9, 0.1] if text.endswith("0") or not text.strip() else [0.1, 0.9] for text in texts]
        )


def held(*rows: tuple[str, str]) -> list[Sample]:
    return [Sample(str(i), owner, "", response) for i, (owner, response) in enumerate(rows)]


def test_heldout_report_by_hand() -> None:
    attributor = Fixed()
    # a: wrong, right, right, right; b: right, wrong, right, wrong. 5 of 8 prefixes, 1 of 2 whole responses
    report = heldout_report(attributor, held(("a", "1000"), ("b", "1010")), warn_below=0.6)  # type: ignore[arg-type]
    assert report["accuracy_heldout"] == 0.5
    assert report["accuracy_heldout_by_quarter"] == [0.5, 0.5, 1.0, 0.5]
    # every confidence is sigmoid(2/T), so T puts it at 5/8: T = 2 / ln(5/3)
    assert report["temperature"] == attributor.temperature == pytest.approx(2 / math.log(5 / 3), rel=1e-4)
    assert report["ece_before"] == pytest.approx(1 / (1 + math.exp(-2)) - 5 / 8)
    assert report["ece_after"] == pytest.approx(0.0, abs=1e-5)
    assert report["nll_before"] == pytest.approx(math.log(1 + math.exp(-2)) + 3 / 8 * 2)
    assert report["nll_after"] == pytest.approx(-5 / 8 * math.log(5 / 8) - 3 / 8 * math.log(3 / 8))
    assert report["n_heldout"] == 2 and report["accuracy_original_responses"] is None
    assert len(report["warnings"]) == 1 and "50% of held-out" in report["warnings"][0]


def test_no_more_responses_are_read_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four, the first and the third, both right; of two masked ones both."""
    monkeypatch.setattr("dareu.attribution.heldout.MOST_SCORES", 2)
    monkeypatch.setattr("dareu.attribution.heldout.LEAST", 2)
    rows, masked = held(("a", "0"), ("b", "0"), ("b", "1"), ("a", "1")), held(("a", "0"), ("b", "0"))
    report = heldout_report(Fixed(), rows, masked=[*masked, *held(("a", "1"), ("b", "0"))])  # type: ignore[arg-type]
    assert (report["n_heldout"], report["accuracy_heldout"]) == (2, 1.0)
    assert report["accuracy_heldout_blinded"] == 0.5  # the first, which is right, and the third


def test_the_temperature_is_fitted_on_no_more_logits_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of eight prefixes, five of them right, every second one: three of four, so that T = 2 / ln 3."""
    monkeypatch.setattr("dareu.attribution.heldout.MOST_LOGITS", 8)
    report = heldout_report(Fixed(), held(("a", "00010110")))  # type: ignore[arg-type]
    assert report["temperature"] == pytest.approx(2 / math.log(3), rel=1e-4)


def test_blinded_responses_are_judged_apart_and_calibrated_with_the_others() -> None:
    rows = held(("a", "1000"), ("b", "1010"))
    masked = held(
        ("b", "11"), ("b", "1"), ("a", "1"), ("a", "")
    )  # right, right; right; wrong; nothing to judge
    report = heldout_report(Fixed(), rows, masked=masked)  # type: ignore[arg-type]
    assert report["accuracy_heldout_blinded"] == pytest.approx(2 / 3)
    # 5 of 8 prefixes and 3 of 4: every confidence is 2/3 at T = 2 / ln 2
    assert report["temperature"] == pytest.approx(2 / math.log(2), rel=1e-4)
    assert report["nll_after"] == pytest.approx(-2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3))
    # what is said of whole responses as they are stays
    assert report["accuracy_heldout"] == 0.5 and report["n_heldout"] == 2
    assert report["accuracy_heldout_by_quarter"] == [0.5, 0.5, 1.0, 0.5]
    assert heldout_report(Fixed(), rows)["accuracy_heldout_blinded"] is None  # type: ignore[arg-type]


def test_original_responses_are_judged_and_empty_ones_are_never_right() -> None:
    pairs = [("a", "10"), ("b", "01"), ("b", "10"), ("a", " ")]  # right, right, wrong, empty (top class a)
    report = heldout_report(Fixed(), held(("a", "0000")), pairs, warn_below=0.9)  # type: ignore[arg-type]
    assert report["accuracy_original_responses"] == 0.5
    assert len(report["warnings"]) == 1 and "own responses" in report["warnings"][0]
    with pytest.raises(DataError, match="'z'"):
        heldout_report(Fixed(), held(("a", "0000")), [("z", "1")])  # type: ignore[arg-type]


def test_report_on_nothing_says_so() -> None:
    for nothing in ([], held(("a", ""))):
        report = heldout_report(Fixed(), nothing)  # type: ignore[arg-type]
        assert report["accuracy_heldout"] is report["ece_after"] is None and report["temperature"] == 1.0
        assert report["accuracy_heldout_by_quarter"] == [None] * 4
        assert "neither calibrated" in report["warnings"][0]
