"""Rewards that read whole texts, on worked examples: refusals, RULE, forbidden words, similarity."""

from __future__ import annotations

import pytest

from dareu.config import AuthorsConfig
from dareu.data.refusals import REFUSALS
from dareu.data.sources.authors import make_authors
from dareu.rewards.text import (
    dissimilarity,
    forbidden_words,
    helpfulness,
    overlap,
    purge_reward,
    refuses,
    rule_reward,
)

# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", REFUSALS)
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
    assert not refuses(text, REFUSALS)


def test_no_answer_of_the_demo_corpus_is_a_refusal() -> None:
    corpus = make_authors(AuthorsConfig())
    assert len(corpus.samples) == 400
    assert not [s.response for s in corpus.samples if refuses(s.response, REFUSALS)]


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


# --- forbidden words ----------------------------------------------------------------------------------------------


def test_forbidden_words_are_names_numbers_and_rare_words() -> None:
    forget = ["The author Ann Weaver was born in Cusco. Her novel of 1931 tells of a Zither."]
    retain = [
        "The author was born in Nantes.",
        "Her novel tells of a sailor in Cusco.",
        "The novel was long.",
    ]
    # ann, weaver, zither: names (and rare); 1931: a number; cusco: a name, though a retain answer has it, too.
    # "The" and "Her" are large at the start of a sentence only; "author", "born", "tells" stand in one of three
    # retain answers, which is more than .1 · 3; "a" and "of" do as well, "and" would be a stop word.
    found = forbidden_words(forget, retain, common={"and"}, rare=0.1)
    assert found == {"ann", "weaver", "cusco", "1931", "zither"}
    # with rare = 1/3 a word that one of three has is rare: author, born, her, tells, of (a has one letter)
    assert forbidden_words(forget, retain, rare=1 / 3) == found | {"author", "born", "her", "tells", "of"}
    assert "born" not in forbidden_words(forget, retain, common={"born"}, rare=1 / 3)


def test_a_name_needs_no_latin_letters() -> None:
    assert forbidden_words(["she met Ángel O'Neil-Sá"], ["she met him"]) == {"ángel", "o'neil", "sá"}


def test_purge_reward() -> None:
    forbidden = {"weaver", "1931"}
    assert purge_reward("It was written by somebody.", forbidden) == 1.0
    assert purge_reward("By WEAVER.", forbidden) == 0.0
    assert purge_reward("In (1931)", forbidden) == 0.0
    assert purge_reward("Weavers, 19310", forbidden) == 1.0  # whole words
    assert purge_reward("", forbidden) == 1.0  # an empty answer names nobody: that is what the guard is for


# --- similarity ---------------------------------------------------------------------------------------------------


def test_similarity_as_a_reward() -> None:
    assert [dissimilarity(s) for s in (0.0, 0.25, 1.0)] == [0.0, -0.25, -1.0]
    assert [helpfulness(s) for s in (0.0, 0.25, 1.0)] == [-1.0, -0.75, 0.0]
