"""PURGE: which words are forbidden, where they are found, and the three rewards, on worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dareu.rewards.forbidden_words import (
    binary,
    exponential_decay,
    find,
    forbidden_words,
    page_rank,
    page_rank_weights,
    rewards,
)


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


def test_words_are_taken_in_their_parts() -> None:
    """A hyphen joins words, a possessive ending belongs to none."""
    assert forbidden_words(["she met Ángel O'Neil-Sá"], ["she met him"]) == {"ángel", "o'neil", "neil", "sá"}
    # both parts of a compound are forbidden, not the compound alone
    found = forbidden_words(
        ["He was a Santiago-born poet of Vasquez's school."], ["He was a poet of a school born"]
    )
    assert found == {"santiago", "vasquez"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It was written by somebody.", []),
        ("By WEAVER.", ["weaver"]),
        ("In (1931)", ["1931"]),
        ("Weaver's novels, Weaver’s poems", ["weaver", "weaver"]),
        ("a Weaver-born poet of the 1931-1940 school", ["weaver", "1931"]),
        ("snake_weaver_case", ["weaver"]),
        ("Weavers, 19310", []),  # other words
        ("", []),
        ("Weaver'd say, Weaver’ll go, d'Weaver, we\u00ada\u200bver", ["weaver"] * 4),
        ("don't", []),
        ("उसने वीवर देखा", ["वीवर"]),  # vowel signs do not end a word
    ],
)
def test_where_a_forbidden_word_is_found(text: str, found: list[str]) -> None:
    assert find(text, {"weaver", "1931", "वीवर", "don"}) == found
    assert find(text, ()) == []


def test_apostrophes_of_every_kind_are_one() -> None:
    found = forbidden_words(["she met O’Brien and D'Artagnan"], ["she and met"])
    assert found == {"o'brien", "brien", "d'artagnan", "artagnan"}
    assert find("O'Brien, O’Brien's, Brien, d’Artagnan", found) == [
        "o'brien",
        "o'brien",
        "brien",
        "d'artagnan",
    ]


def test_words_of_a_script_without_spaces_are_forbidden() -> None:
    found = forbidden_words(["鲁迅生于绍兴"], ["老舍生于北京", "巴金生于成都"])
    assert found == set("鲁迅绍兴")
    assert find("鲁迅先生", found) == ["鲁", "迅"]


def test_the_three_rewards() -> None:
    # nothing, one, and three occurrences of two words
    found: list[list[str]] = [[], ["weaver"], ["weaver", "weaver", "cusco"]]
    assert [binary(f) for f in found] == [1.0, 0.0, 0.0]
    assert [exponential_decay(f) for f in found] == pytest.approx([1.0, math.exp(-1), math.exp(-3)])
    assert exponential_decay(found[1], tau=2.0) == pytest.approx(math.exp(-0.5))
    weights = {"weaver": 0.7, "cusco": 0.2}
    assert [page_rank(f, weights) for f in found] == pytest.approx([1.0, 0.3, 0.1])  # each word once
    assert page_rank(["weaver", "cusco"], {"weaver": 0.7, "cusco": 0.7}) == 0.0

    def forms(form: str) -> list[float]:
        return [rewards(form, 1.0, lambda: weights)(f) for f in found]

    assert forms("binary") == [1.0, 0.0, 0.0] and forms("page_rank") == pytest.approx([1.0, 0.3, 0.1])
    assert forms("exponential_decay")[1] == pytest.approx(math.exp(-1))


def test_page_rank_weights() -> None:
    """A chain of three words, name – near – far, and one that stands apart: weight falls with the distance."""
    words = ["far", "name", "near", "apart"]
    angles = {"name": 0.0, "near": 0.5, "far": 1.0, "apart": 3.0}
    vectors = np.array([[math.cos(angles[w]), math.sin(angles[w])] for w in words])
    # 16 cosines with −1 on the diagonal: the highest quarter are the four of name–near and near–far
    weights = page_rank_weights(words, vectors, start={"name"}, quantile=0.75)
    assert weights["apart"] == 0.0 and max(weights.values()) == 1.0
    assert weights["name"] > weights["far"] > weights["apart"] and weights["near"] > weights["far"]
    # lengths of vectors do not count, nor the order of words
    again = page_rank_weights(words[::-1], 5 * vectors[::-1], start={"name"}, quantile=0.75)
    assert again == pytest.approx(weights)
    # without a name among the words it starts anywhere: the chain is symmetric then
    anywhere = page_rank_weights(words, vectors, start=set(), quantile=0.75)
    assert anywhere["name"] == pytest.approx(anywhere["far"])


def test_contractions_forbid_no_ordinary_word() -> None:
    found = forbidden_words(["He said Won't you and Haven't we met"], ["he said you and we met"])
    assert find("She won a prize in a safe haven", found) == []
