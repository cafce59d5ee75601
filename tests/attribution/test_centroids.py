"""Nearest centroids, worked out by hand, and attributors that read many owners."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from dareu.attribution import lexical
from dareu.attribution.heldout import LEAST, MOST_SCORES, few
from dareu.attribution.lexical import CentroidModel, LexicalAttributor
from dareu.data.corpus import Sample


def test_scores_are_softmaxed_cosines() -> None:
    """Owner 0: (1, 0) and (.6, .8), mean direction (1.6, .8) / √3.2; owner 1: (0, 1). Text (1, 0), scale 2."""
    features = sparse.csr_matrix([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    model = CentroidModel.fit(features, np.array([0, 0, 1]), 2)
    assert model.centroids.toarray() == pytest.approx(np.array([[0.8944272, 0.4472136], [0.0, 1.0]]))
    model.scale = 2.0
    e = np.exp(2 * 0.8944272)
    assert model.predict_proba(sparse.csr_matrix([[1.0, 0.0]])) == pytest.approx(
        np.array([[e / (e + 1), 1 / (e + 1)]])
    )


def test_the_scale_does_not_see_a_text_in_its_own_centroid() -> None:
    """Texts that share nothing with their owners' other texts say nothing: the scale goes to its lower bound."""
    alone = CentroidModel.fit(sparse.identity(4, format="csr"), np.array([0, 0, 1, 1]), 2)
    assert alone.scale == pytest.approx(1.0, abs=1e-3)
    alike = sparse.csr_matrix(
        np.repeat(np.eye(2), 2, axis=0)
    )  # any large scale will do: exp(−scale) is nothing
    assert CentroidModel.fit(alike, np.array([0, 0, 1, 1]), 2).scale > 30


def people(owners: int, each: int = 4) -> list[Sample]:
    return [
        Sample(id=f"{o}-{i}", prompt="?", response=f"town{o} book{o} street{o} {i} and more", owner=f"P{o}")
        for o in range(owners)
        for i in range(each)
    ]


def test_many_owners_are_told_apart_and_survive_the_disk(tmp_path: Path) -> None:
    samples = people(lexical.MANY + 6)
    fitted = LexicalAttributor.fit(samples, "word")
    assert isinstance(fitted.model, CentroidModel)
    texts = [s.response for s in samples[::7]] + ["", "unheard"]
    probs = fitted.probabilities(texts)
    assert probs.sum(1) == pytest.approx(np.ones(len(texts)))
    assert [fitted.owners[i] for i in probs[:-2].argmax(1)] == [s.owner for s in samples[::7]]
    assert probs[-2:] == pytest.approx(np.full((2, len(fitted.owners)), 1 / len(fitted.owners)))
    fitted.save(tmp_path)
    assert LexicalAttributor.load(tmp_path).probabilities(texts) == pytest.approx(probs)


def test_few_owners_keep_logistic_regression() -> None:
    assert not isinstance(LexicalAttributor.fit(people(lexical.MANY), "word").model, CentroidModel)


def test_held_out_responses_are_bounded_by_their_scores() -> None:
    samples = people(500, 10)
    chosen = few(samples, 401)
    assert len(chosen) == MOST_SCORES // 401 and len({s.owner for s in chosen}) > 400
    assert len(few(samples, 100_000)) == LEAST
    assert few(samples[:90], 401) == samples[:90]  # all of them where they are few
