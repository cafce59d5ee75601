"""Evidence by hand; scores of a small model: prefixes, order, batches, a saved copy; owners without a name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dareu.attribution.base import Attributor
from dareu.attribution.counterfactual import CounterfactualAttributor, CounterfactualSettings, evidence
from dareu.attribution.registry import load_attributor
from dareu.config import TinyConfig
from dareu.data.corpus import Sample
from dareu.errors import DataError
from dareu.models.load import load_model
from dareu.models.tiny import make_tiny

NAMES = ("Ada Finch", "Bo Reed", "Cy Wells", "Di Marsh")
PLACES = ("Oslo", "Lima", "Bern", "Riga")
SAMPLES = [
    Sample(id=f"{i}", owner=name, prompt=f"Where was {name} born?", response=f"{name} was born in {place}.")
    for i, (name, place) in enumerate(zip(NAMES, PLACES, strict=True))
]


def test_evidence_by_hand() -> None:
    """ln .8 − ln ((.2 + .6) / 2) = ln 2; then a token without counterpart; then ln .5 − ln .25, with one name alone."""
    found = evidence(
        [math.log(0.8), -9.0, math.log(0.5)],
        [[math.log(0.2), math.log(0.6)], [None, None], [None, math.log(0.25)]],
    )
    assert found.tolist() == pytest.approx([math.log(2), math.log(2), 2 * math.log(2)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A small model that has learnt where these people were born."""
    import torch

    from dareu.data.render import encode_samples
    from dareu.models.logprobs import to_batch

    folder = tmp_path_factory.mktemp("model")
    texts = [f"{s.prompt} {s.response}" for s in SAMPLES] * 4
    make_tiny(
        TinyConfig(hidden_size=32, intermediate_size=64, layers=2, heads=2, vocab_size=300), texts, 0, folder
    )
    model, tokenizer = load_model(folder)
    batch = to_batch(encode_samples(tokenizer, SAMPLES, "qa", 128), tokenizer.pad_token_id, "cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(80):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


def attributor(trained: tuple[Any, Any], **settings: Any) -> CounterfactualAttributor:
    return CounterfactualAttributor.from_samples(
        *trained, SAMPLES, "qa", CounterfactualSettings(candidates=4, **settings), seed=1
    )


def test_a_memorised_answer_goes_to_its_owner(trained: tuple[Any, Any]) -> None:
    found = attributor(trained)
    assert isinstance(found, Attributor) and found.owners == list(NAMES)
    probs = found.probabilities([s.response for s in SAMPLES])
    assert probs.shape == (4, 5) and np.allclose(probs.sum(1), 1)
    assert probs.argmax(1).tolist() == [0, 1, 2, 3]


def test_no_text_is_no_evidence(trained: tuple[Any, Any]) -> None:
    found = attributor(trained)
    assert found.probabilities(["", " "]).tolist() == [[0.2] * 5] * 2
    assert found.probabilities([]).shape == (0, 5)


def test_prefixes_order_and_batches_change_nothing(trained: tuple[Any, Any]) -> None:
    texts = [SAMPLES[0].response, "She was born in Lima."]
    many, one = attributor(trained), attributor(trained, batch_size=1)
    whole = many.probabilities(texts)
    assert np.allclose(one.probabilities(texts), whole, atol=1e-4)
    assert np.allclose(many.probabilities(texts[::-1])[::-1], whole, atol=1e-4)
    first = many.prefix_probabilities(texts, [[0, len(texts[0])], [len(texts[1])]])
    assert np.allclose(first[0][0], 0.2) and np.allclose(first[0][1], whole[0], atol=1e-6)
    assert np.allclose(first[1][0], whole[1], atol=1e-6)


def test_a_saved_copy_says_the_same(trained: tuple[Any, Any], tmp_path: Path) -> None:
    found = attributor(trained)
    found.fit_temperature(SAMPLES)
    found.save(tmp_path)
    texts = [s.response for s in SAMPLES]
    assert np.allclose(load_attributor(tmp_path).probabilities(texts), found.probabilities(texts), atol=1e-6)


def test_owners_without_a_name_are_refused() -> None:
    rows = [Sample(id=str(i), owner=f"topic {i}", prompt="", response="we study graphs.") for i in range(3)]
    with pytest.raises(DataError, match="no name"):
        CounterfactualAttributor.from_samples(None, None, rows, "completion", CounterfactualSettings())
