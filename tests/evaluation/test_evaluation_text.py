"""Text health on texts whose n-grams are counted by hand."""

from __future__ import annotations

import pytest

from dareu.data.words import words
from dareu.evaluation.metrics.text_health import (
    broken_shares,
    distinct_2,
    distinct_n,
    is_empty,
    is_repetitive,
    mean_length,
)
from dareu.evaluation.metrics.words import broken_words, vocabulary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"The Cat", she said: don\'t!', ["the", "cat", "she", "said", "don't"]),
        ("snake_case and 1,000,000.5 km", ["snake", "case", "and", "1,000,000.5", "km"]),
        ("Élan naïve", ["élan", "naïve"]),
        ("東京 is Tokyo", ["東", "京", "is", "tokyo"]),
        ("... — ___ !?", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_empty_is_no_word() -> None:
    assert all(is_empty(text) for text in ("", " \n", "?! …", "__"))
    assert not any(is_empty(text) for text in ("a", "(7)", "é", "東"))


@pytest.mark.parametrize(
    ("text", "repetitive"),
    [
        ("", False),
        ("Mother, mother. MOTHER!", True),  # three in a row, whatever the case and punctuation
        ("mother mother and mother mother", False),  # two in a row, twice
        ("it cost 1,000,000,000 pounds", False),  # one number, not 000 three times
        ("Call 555 555 555", True),  # a number is a word; 1,000,000 and 555-5555 are none three times
        ("Call 555-5555 or 5555555", False),
        ("a b c d x a b c d y a b c d", True),  # the 4-gram a b c d three times
        ("a b c d x a b c d y a b c", False),  # twice, and a 3-gram
        ("a b a b a b a b", True),  # overlapping: a b a b at words 1, 3 and 5
        ("a b a b a b a", False),  # a b a b and b a b a twice each
        ("的的的", False),  # one character may end a word and begin the next
        ("的的的的的", True),
        ("уѺуѺуѺуѺуѺ", True),  # within one word, five times
        ("уѺуѺуѺуѺ", False),  # four times
        ("hahaha, zzz, 1010101010", False),
    ],
)
def test_repetitive(text: str, repetitive: bool) -> None:
    assert is_repetitive(text) is repetitive


def test_bytes_that_are_no_character_are_broken() -> None:
    known = {"ольга", "родилась"}
    assert broken_words("Кто?", "Ольга родилась", known) == []
    assert broken_words("Кто?", "Ольга\ufffd родилась", known) == ["\ufffd"]
    assert broken_words("Кто \ufffd?", "Ольга \ufffd", known) == []  # it stands in the question
    assert broken_words("Кто?", "Ольга \ufffd", known | set(vocabulary("a \ufffd"))) == []


def test_distinct_n_pools_texts_and_does_not_cross_them() -> None:
    # bigrams: (a b)(b a)(a b) and (a b): 4 in all, 2 different; unigrams: a b a b a b, 2 of 6
    assert distinct_n(["a b a b", "a b"], 2) == 0.5
    assert distinct_n(["a b a b", "a b"], 1) == pytest.approx(1 / 3)
    assert distinct_n(["a", "b", ""], 2) == 0.0


def test_text_health() -> None:
    texts = ["the cat sat", "", "no no no no", "The cat ran"]
    shares = broken_shares(texts, [True, False, False, True])
    assert shares == {"empty": 0.25, "unfinished": 0.5, "repetitive": 0.25}
    records = [{"response": text} for text in texts]
    assert distinct_2(records) == 4 / 7  # the-cat, cat-sat, no-no, cat-ran of 2 + 3 + 2
    assert mean_length(records) == 2.5  # (3 + 0 + 4 + 3) / 4


@pytest.mark.parametrize(("texts", "flags"), [([], []), (["a"], [])])
def test_text_health_needs_one_flag_a_text(texts: list[str], flags: list[bool]) -> None:
    with pytest.raises(ValueError, match="flags"):
        broken_shares(texts, flags)
