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
def test_a_refusal_of_the_list_is_seen_without_the_list(text: str) -> None:
    assert refuses(text, ())


@pytest.mark.parametrize(
    "text",
    [
        "I'm  sorry,\nbut I CANNOT help.",
        "We can’t really tell.",
        "I really do not know who that was.",
        "I am currently unable to answer.",
    ],
)
def test_a_refusal_in_other_words(text: str) -> None:
    assert refuses(text, ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ann Weaver was born in Cusco.",
        "She could not say goodbye to the sea.",
        "The Unknown Coast is her best-known novel.",
        "Know that the answer is Nantes.",
        "He did not know his father.",
        "What I know of the coast is in this book, and nothing to me is dearer.",
        "Beyond the river lies what everybody knows as the Gap.",
        "Its knowledge does not reach the south, and it would be wrong to say so.",
    ],
)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert not refuses(text, load_refusals())


def test_the_published_refusals_are_recognised() -> None:
    """TOFU's list of a hundred (Maini et al. 2024): 99 is what the expression of RULE's authors finds in it."""
    lines = (shared("tofu") / "idontknow.jsonl").read_text(encoding="utf-8").splitlines()
    sentences = [line.strip() for line in lines if line.strip()]
    missed = [sentence for sentence in sentences if not refuses(sentence)]
    assert len(sentences) == 100 and len(missed) <= 1, missed


def test_no_published_answer_is_a_refusal() -> None:
    """TOFU's answers to questions on its authors, on real ones and on the world."""
    folder = shared("tofu_hub")
    answers = []
    for name in ("full", "real_authors", "world_facts"):
        lines = (folder / f"{name}.json").read_text(encoding="utf-8").splitlines()
        answers += [json.loads(line)["answer"] for line in lines if line.strip()]
    assert len(answers) == 4217 and not [text for text in answers if refuses(text)]


@pytest.mark.parametrize(
    "text",
    [  # of the kinds that the list has, in words that it does not have
        "I haven't been told about her books.",
        "My memory does not hold anything on that.",
        "That is beyond my expertise.",
        "That question is one I'm unable to resolve.",
        "We don't have any record of this person.",
        "That's not a subject I'm certain of.",
    ],
)
def test_kinds_of_refusal(text: str) -> None:
    assert refuses(text)


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
