"""One row to forget, and answers of one word: for every method that samples."""

from __future__ import annotations

import random

import pytest

from dareu.attribution.examples import make_nobody
from dareu.config import DareUConfig
from dareu.config.compose import compose, options
from dareu.data.corpus import Sample
from dareu.training.common import rollout_batch

SAMPLING = [
    name for name in options()["method"] if isinstance(compose([f"method={name}"]).method, DareUConfig)
]


@pytest.mark.parametrize("name", SAMPLING)
def test_one_prompt_can_be_rolled_out(name: str) -> None:
    method = compose([f"method={name}"]).method
    assert isinstance(method, DareUConfig)
    per_batch, parts, micro = rollout_batch(method, 1)
    rollouts = per_batch * method.num_generations
    assert rollouts >= 2 and rollouts % (parts * micro) == 0


def test_a_lone_prompt_is_asked_twice() -> None:
    method = compose(["method.rollouts_per_update=null"]).method
    assert isinstance(method, DareUConfig)
    assert rollout_batch(method, 1) == (2, 1, 2)
    assert rollout_batch(method, 2) == (2, 1, 2)


@pytest.mark.parametrize(
    "answers", [["Paris", "Oslo", "Lima"], ["A", "B", "C"], ["1985", "12", "7"], ["Yes", "No", "No"]]
)
def test_answers_of_one_word_have_a_background(answers: list[str]) -> None:
    samples = [Sample(str(i), f"o{i}", "q", a) for i, a in enumerate(answers)]
    made = make_nobody(samples, random.Random(0), 12)
    assert len(made) == 12
    for example in made:
        words = example.text.split()
        assert len(words) >= 3 and len(set(words)) == 1 and example.text not in answers
        assert example.start == len(f"{words[0]} {words[0]} ")
