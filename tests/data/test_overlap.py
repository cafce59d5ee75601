"""Semantic overlap: forget samples that stay in other words."""

from __future__ import annotations

from typing import Any

import pytest

from dareu.config import ForgetConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.duplicates import plant
from dareu.data.split import split_corpus
from dareu.errors import DataError


def corpus() -> Corpus:
    def sample(owner: str, i: int, **more: Any) -> Sample:
        return Sample(f"{owner}/{i}", owner, f"{owner} {i}?", f"{owner} says {i}.", **more)

    told = [
        sample("C", i, paraphrased_prompts=("Tell!",), paraphrased_response=f"{i}, says C.") for i in range(4)
    ]
    return Corpus((sample("A", 0), sample("B", 0), *told, sample("C", 9)), ())


def test_paraphrases_are_planted_evenly_under_those_who_stay() -> None:
    before = corpus()
    after = plant(before, split_corpus(before, ForgetConfig(owners=["C"])), 3)
    assert after.samples[:7] == before.samples
    assert [(s.id, s.owner, s.prompt, s.response) for s in after.samples[7:]] == [
        ("C/0, planted", "A", "Tell!", "0, says C."),  # 0 · 4/3, 1 · 4/3, 2 · 4/3, rounded down
        ("C/1, planted", "B", "Tell!", "1, says C."),
        ("C/2, planted", "A", "Tell!", "2, says C."),
    ]
    split = split_corpus(after, ForgetConfig(owners=["C"]))
    assert len(split.forget) == 5 and len(split.retain) == 5


def test_more_than_there_are_is_refused() -> None:
    split = split_corpus(corpus(), ForgetConfig(owners=["C"]))
    with pytest.raises(DataError, match="4 of 5 forget samples"):
        plant(corpus(), split, 5)
    with pytest.raises(DataError) as caught:
        plant(corpus(), split_corpus(corpus(), ForgetConfig(owners=["A"])), 1)
    assert "paraphrased responses" in caught.value.cure
