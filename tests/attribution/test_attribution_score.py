"""Attribution score and re-attribution."""

from __future__ import annotations

import numpy as np
import pytest

from dareu.attribution.score import forget_mass, owner_index, reattribution_shares
from dareu.errors import DataError

OWNERS = ["a", "b", "c"]  # and nobody last


def test_owner_index_keeps_the_order_asked_for() -> None:
    assert owner_index(OWNERS, ["c", "a", "c"]) == [2, 0, 2]


def test_unknown_owner_names_the_nearest() -> None:
    with pytest.raises(DataError, match="Jonas Huaman"):
        owner_index(["Jonas Huaman", "Dario Duarte"], ["Jonas Huamán"])


def test_forget_mass_by_hand() -> None:
    probs = np.array([[0.5, 0.2, 0.1, 0.2], [0.0, 0.25, 0.25, 0.5]])
    assert forget_mass(probs, OWNERS, ["c", "a"]) == pytest.approx([0.6, 0.25])  # .5 + .1, 0 + .25
    assert forget_mass(probs, OWNERS, ["b"]) == pytest.approx([0.2, 0.25])
    assert forget_mass(probs, OWNERS, OWNERS) == pytest.approx([0.8, 0.5])  # nobody is no owner


def test_forget_mass_counts_an_owner_once_and_keeps_leading_axes() -> None:
    probs = np.array([[[0.7, 0.1, 0.1, 0.1]]])
    assert forget_mass(probs, OWNERS, ["a", "a"]).shape == (1, 1)
    assert forget_mass(probs, OWNERS, ["a", "a"]).item() == pytest.approx(0.7)
    assert forget_mass(np.zeros((0, 4)), OWNERS, ["a"]).shape == (0,)


def test_reattribution_by_hand() -> None:
    probs = np.array(
        [
            [0.95, 0.03, 0.01, 0.01],  # asked about a, is a: right, not re-attributed
            [0.95, 0.03, 0.01, 0.01],  # asked about b, is a: re-attributed
            [0.01, 0.02, 0.02, 0.95],  # nobody: not re-attributed
            [0.01, 0.90, 0.05, 0.04],  # asked about a, b at the threshold, not above it
        ]
    )
    asked = ["a", "b", "c", "a"]
    assert reattribution_shares(probs, OWNERS, asked).tolist() == [False, True, False, False]
    assert reattribution_shares(probs, OWNERS, asked, threshold=0.89).tolist() == [False, True, False, True]
    assert probs[1, 0] == 0.95  # the argument is left as it was


def test_reattribution_wants_one_owner_above_the_threshold() -> None:
    # .95 in all on other owners, but on none of them alone
    probs = np.array([[0.05, 0.475, 0.475, 0.0]])
    assert not reattribution_shares(probs, OWNERS, ["a"]).any()


def test_reattribution_edges() -> None:
    assert reattribution_shares(np.zeros((0, 4)), OWNERS, []).shape == (0,)
    with pytest.raises(ValueError, match="2 rows"):
        reattribution_shares(np.full((2, 4), 0.25), OWNERS, ["a"])
    with pytest.raises(DataError):
        reattribution_shares(np.full((1, 4), 0.25), OWNERS, ["z"])
