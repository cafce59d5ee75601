"""The attributors without a network, the k-prefix path, and what is saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from attribution_fixture import toy_samples

from dareu.attribution.base import Attributor, prefix_by_calls
from dareu.attribution.lexical import Features, LexicalAttributor
from dareu.attribution.registry import load_attributor
from dareu.config import AuthorsConfig
from dareu.data.corpus import Sample
from dareu.data.sources.authors import make_authors
from dareu.errors import DataError, ModelError

KINDS: tuple[Features, ...] = ("char", "word")


class Lengths:
    """Scores a text by its length alone: p(first) = len / 10. Counts what it is asked."""

    owners = ["a", "b"]
    nobody = False

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        first = np.array([len(text) / 10 for text in texts])
        return np.stack([first, 1 - first], axis=1)

    def prefix_probabilities(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return prefix_by_calls(self, texts, ends, batch_size=2)


def test_prefixes_by_calls_by_hand() -> None:
    attributor = Lengths()
    rows = attributor.prefix_probabilities(["abcde", "abX", ""], [[0, 2, 5, 9], [2, 3, -1], []])
    assert rows[0][:, 0].tolist() == [
        0.5,
        0.2,
        0.5,
        0.5,
    ]  # no evidence: uniform; past the end: the whole text
    assert rows[1][:, 0] == pytest.approx([0.2, 0.3, 0.5])
    assert rows[2].shape == (0, 2)
    assert attributor.calls == [["ab", "abcde"], ["abX"]]  # each distinct prefix once, two to a call


@pytest.mark.parametrize("kind", KINDS)
def test_training_text_goes_to_its_owner(kind: Features) -> None:
    samples = toy_samples()
    attributor = LexicalAttributor.fit(samples, kind)
    assert isinstance(attributor, Attributor)
    probs = attributor.probabilities([s.response for s in samples])
    assert probs.shape == (24, 3) and probs.sum(axis=1) == pytest.approx(np.ones(24))
    assert [attributor.owners[i] for i in probs.argmax(axis=1)] == [s.owner for s in samples]
    assert probs.max(axis=1).min() > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_no_known_n_gram_is_no_evidence(kind: Features) -> None:
    # an owner with three times the data: its prior must not count as evidence
    samples = toy_samples(owners=2, each=24)[:32]
    probs = LexicalAttributor.fit(samples, kind).probabilities(["", "   ", "ЖЩЖ", samples[0].response])
    assert probs[:3].tolist() == [[0.5, 0.5]] * 3
    assert probs[3].max() > 0.8


def test_prefixes_agree_with_whole_texts() -> None:
    samples = toy_samples()
    attributor = LexicalAttributor.fit(samples, "char")
    text = samples[9].response
    rows = attributor.prefix_probabilities([text], [[0, 5, 12, len(text)]])[0]
    alone = attributor.probabilities(["", text[:5], text[:12], text])
    assert rows == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("owners", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind: Features, owners: int, tmp_path: Path) -> None:
    samples = toy_samples(owners=owners)
    attributor = LexicalAttributor.fit(samples, kind)
    attributor.save(tmp_path / "a")
    texts = ["", "Østby", *(s.response[:20] for s in samples)]
    loaded = load_attributor(tmp_path / "a")
    assert isinstance(loaded, LexicalAttributor) and loaded.owners == attributor.owners and not loaded.nobody
    assert np.array_equal(loaded.probabilities(texts), attributor.probabilities(texts))
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"attributor.json", "lexical.safetensors"}


def test_what_cannot_be_loaded_or_fitted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"attributor\.json is missing"):
        load_attributor(tmp_path)
    (tmp_path / "attributor.json").write_text(json.dumps({"kind": "lexicle"}))
    with pytest.raises(ModelError, match="lexical"):
        load_attributor(tmp_path)
    with pytest.raises(DataError, match="two owners"):
        LexicalAttributor.fit(toy_samples(owners=1))
    with pytest.raises(DataError, match="no word|No response"):
        LexicalAttributor.fit([Sample("1", "a", "", "…"), Sample("2", "b", "", "!")], "word")


def test_samples_without_owner_are_left_out() -> None:
    general = Sample("g", None, "", "Water boils.")
    with_it = LexicalAttributor.fit([*toy_samples(), general])
    assert with_it.owners == LexicalAttributor.fit(toy_samples()).owners


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_authors_are_named_well_above_chance(kind: Features) -> None:
    samples = make_authors(AuthorsConfig(owners=8, pairs=20, facts=0)).samples
    out = [s for i, s in enumerate(samples) if i % 10 == 3]  # 2 of each owner, 16 in all
    attributor = LexicalAttributor.fit([s for s in samples if s not in out], kind)
    guess = attributor.probabilities([s.response for s in out]).argmax(axis=1)
    right = np.mean([attributor.owners[i] == s.owner for i, s in zip(guess, out, strict=True)])
    assert right >= 1 / 8 + 0.4
