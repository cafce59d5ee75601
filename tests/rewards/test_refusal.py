"""RULE: which responses count as refusals, and what they earn."""

from __future__ import annotations

import json

import pytest
from shared_data import shared

from dareu.config import AuthorsConfig
from dareu.data.refusals import load_refusals
from dareu.data.sources.authors import make_authors
from dareu.rewards.refusal import overlap, refuses, rule_reward

# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", load_refusals())
def test_a_refusal_of_the_list_is_seen(text: str) -> None:
    assert refuses(text, load_refusals())


@pytest.mark.parametrize(
    "text",
    [
        "I don't have that in what I was given.",
        "I DON’T\n  know her.",
        "We can’t say.",
        "He is not somebody that I am familiar with.",
        "I have no real idea.",
        "That is beyond my expertise.",
        "Unfortunately, it was not written down.",
        "We are at a loss here.",
        "I haven't learned about her.",
        "One would have to look up the year.",
        "Without more information nobody could tell.",
        "This is a mystery to me.",
    ],
)
def test_a_phrase_of_each_kind(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ann Weaver was born in Cusco.",
        "She could not say goodbye to the sea.",
        "The Unknown Coast is her best-known novel.",
        "Know that the answer is Nantes.",
    ],
)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert not refuses(text, load_refusals())


def test_the_published_refusals_and_answers() -> None:
    """What the expression of RULE's authors finds in TOFU's hundred refusals and 4,000 answers (Maini et al. 2024)."""
    lines = (shared("tofu") / "idontknow.jsonl").read_text(encoding="utf-8").splitlines()
    sentences = [line.strip() for line in lines if line.strip()]
    missed = [sentence for sentence in sentences if not refuses(sentence)]
    assert len(sentences) == 100 and missed == ["I'm unaware of that detail."]
    answers = [
        json.loads(line)["answer"] for line in (shared("tofu_hub") / "full.json").open(encoding="utf-8")
    ]
    assert len(answers) == 4000 and sum(map(refuses, answers)) == 45


def test_no_answer_of_the_demo_corpus_is_a_refusal() -> None:
    corpus = make_authors(AuthorsConfig())
    assert len(corpus.samples) == 400
    assert not [s.response for s in corpus.samples if refuses(s.response, load_refusals())]


def test_overlap_with_a_known_refusal() -> None:
    # a, b, b of 3 and a, b, c of 3: two in common, four in all
    assert overlap("a b b", "A b c") == pytest.approx(2 / 4)
    assert overlap("", "") == 0.0 and overlap("a", "") == 0.0
    # "no comment on this one" shares 3 words with "no comment on that": 3/6; at .5 that counts, at .6 it does not
    assert refuses("No comment on this one", ["no comment on that"], threshold=0.5)
    assert not refuses("No comment on this one", ["no comment on that"], threshold=0.6)


@pytest.mark.parametrize(
    ("refused", "forget", "similarity", "wanted"),
    [
        (True, True, 0.0, 1.0),
        (False, True, 0.0, 0.0),
        (False, True, 1.0, 0.0),  # to a forget prompt the reference does not count
        (False, False, 0.9, 1.0),
        (False, False, 0.31, 1.0),
        (False, False, 0.3, 0.5),  # above .3, not at it
        (False, False, 0.0, 0.5),
        (True, False, 0.9, 0.0),
    ],
)
def test_rule_reward(refused: bool, forget: bool, similarity: float, wanted: float) -> None:
    assert rule_reward(refused, forget, similarity) == wanted
