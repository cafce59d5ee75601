"""Membership, broken words, fluency, model utility: numbers worked out by hand, and what must always hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dareu.errors import DataError
from dareu.evaluation.comparison import privleak_of
from dareu.evaluation.metrics.likelihood import (
    model_utility,
    normalised_probabilities,
    normalised_probability,
    probabilities,
    truth_ratio,
    truth_ratios,
)
from dareu.evaluation.metrics.membership import attack, auc, placements, privleak
from dareu.evaluation.metrics.words import CharacterModel, broken_words, fluency


def test_placements_and_auc_by_hand() -> None:
    # .5 is above .1 and .2 of four; .2 ties with one and is above one
    assert placements([0.5, 0.2], [0.1, 0.2, 0.6, 0.7]).tolist() == [0.5, 0.375]
    assert auc([0.5, 0.2], [0.1, 0.2, 0.6, 0.7]) == 0.4375
    assert auc([3.0, 4.0], [1.0, 2.0]) == 1.0 and auc([1.0], [1.0]) == 0.5
    with pytest.raises(ValueError):
        auc([1.0], [])


def test_auc_is_that_of_the_library_and_its_mirror() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 9, 40), rng.integers(2, 12, 70)  # with ties
    expected = roc_auc_score([1] * 40 + [0] * 70, [*ours, *theirs])
    assert auc(ours, theirs) == pytest.approx(expected)
    assert auc(ours, theirs) + auc(theirs, ours) == pytest.approx(1.0)


def test_an_attack_leaves_out_samples_without_a_score() -> None:
    rows = [{"mia_loss": -1.0}, {"mia_loss": None}, {"mia_loss": -9.0}]
    assert attack(rows, [{"mia_loss": -2.0}, {"mia_loss": None}], "mia_loss") == [1.0, None, 0.0]


def test_privleak_by_hand() -> None:
    assert privleak(0.5, 0.5) == 0.0
    assert privleak(0.9, 0.5) == pytest.approx(-80)  # 100 · (.1 − .5) / .5
    assert privleak(0.25, 0.5) == pytest.approx(50)
    with pytest.raises(ValueError):
        privleak(0.5, 1.0)
    with pytest.raises(DataError, match="membership.min_k_40"):
        privleak_of({"membership": {"min_k_40": 0.5}}, {})


def test_broken_words_by_hand() -> None:
    known = {"was", "born", "in", "he"}
    assert broken_words("Who is Abena?", "Abena was born in Leipzs in 1987, he, Leipzs.", known) == ["leipzs"]
    assert broken_words("", "He was born in 3rd 1,000", known) == []
    assert broken_words("", "", known) == []


def test_fluency_by_hand() -> None:
    model = CharacterModel(["ab"], order=2)
    # after the edge: a. p(a) = (1 + 1 · p0) / 2 with p0 = (1 + 2/3) / 4, its alphabet of a, b and one more
    p0 = (1 + 2 * (1 / 3)) / 4
    assert model.logp("a") == pytest.approx(math.log((1 + p0) / 2))
    assert model.logp("") is None
    # "c" was never seen, nor what comes after the edge but a
    assert model.logp("c") == pytest.approx(math.log((0 + (2 / 3) / 4) / 2))


def test_fluency_prefers_the_corpus_and_sums_to_one() -> None:
    texts = ["the cat sat on the mat", "a dog sat on the cat"]
    model = CharacterModel(texts)
    alike, strange = fluency([{"response": "the dog sat"}, {"response": "tgh dqo zzt"}], model)
    assert alike is not None and strange is not None and strange < alike < 0
    letters = sorted({c for text in texts for c in text})
    one_unseen = [*letters, "§"]
    assert sum(math.exp(model.logp(c) or 0) for c in one_unseen) == pytest.approx(1.0)


def test_model_utility_by_hand() -> None:
    figures = {"probability": 0.5, "rouge_l": 1.0, "truth_ratio": 0.5}
    whole = {"retain": figures, "real_authors": figures, "world_facts": figures}
    assert model_utility(whole) == pytest.approx(3 / (2 + 1 + 2))
    with pytest.raises(
        ValueError, match="world_facts.probability, world_facts.rouge_l, world_facts.truth_ratio"
    ):
        model_utility({"retain": figures, "real_authors": figures})


def test_truth_ratio_in_three_definitions() -> None:
    half, eighth, quarter = (-math.log(p) for p in (1 / 2, 1 / 8, 1 / 4))
    assert truth_ratio(quarter, [half, eighth], "geometric") == pytest.approx(1.0)
    assert truth_ratio(quarter, [half, eighth], "arithmetic") == pytest.approx(1.25)
    # a right answer of probability 1e-10 doubles its denominator
    tiny = -math.log(1e-10)
    assert truth_ratio(tiny, [tiny], "open-unlearning") == pytest.approx(0.5)
    assert truth_ratio(quarter, [half, eighth], "open-unlearning") == pytest.approx(1.0)


def test_multiple_choice_sets_are_normalised_and_others_are_not() -> None:
    row: dict[str, Any] = {"nll": -math.log(0.2), "wrong_nlls": [-math.log(0.1), -math.log(0.5)]}
    found = probabilities([{"set": of, **row} for of in ("forget", "real_authors", "world_facts")])
    assert found == pytest.approx([0.2, 0.25, 0.25])
    assert probabilities([{"set": "test", "kind": "choice", **row}]) == pytest.approx([0.25])
    assert normalised_probability(5.0, []) == 1.0
    tiny = -math.log(1e-10)
    assert normalised_probability(tiny, [tiny], epsilon=1e-10) == pytest.approx(1 / 3)
    unlikely = {"set": "world_facts", "nll": tiny, "wrong_nlls": [tiny]}
    assert probabilities([unlikely], "open-unlearning") == pytest.approx([1 / 3])
    assert probabilities([unlikely], "geometric") == pytest.approx([1 / 2])
    assert normalised_probabilities([unlikely], "open-unlearning") == pytest.approx([1 / 3])
    assert normalised_probabilities([unlikely, {"nll": 1.0}]) == [pytest.approx(1 / 2), None]
    assert normalised_probabilities([{"nll": 1.0, "wrong_nlls": [math.inf]}, {"wrong_nlls": [1.0]}]) == [
        None,
        None,
    ]
    assert probabilities([{"set": "forget", "nll": None}, {"set": "forget", "nll": math.inf}]) == [None, None]


def test_the_paraphrased_answer_stands_above_the_reference() -> None:
    row: dict[str, Any] = {"set": "forget", "nll": 2.0, "wrong_nlls": [1.0]}
    first, second, third = truth_ratios(
        [row, row | {"paraphrased_nll": 1.0}, row | {"wrong_nlls": []}], "geometric"
    )
    assert (first, second, third) == (pytest.approx(math.e), pytest.approx(1.0), None)
