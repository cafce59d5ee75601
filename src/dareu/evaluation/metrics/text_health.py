"""Health of generated text: what a similarity score does not see. Strings in, numbers out; no torch."""

from collections import Counter
from collections.abc import Sequence

import regex

from dareu.data.words import has_word, is_character, words
from dareu.evaluation.metrics.base import Records


def is_empty(text: str) -> bool:
    """Whether the text holds no word; punctuation and symbols are none."""
    return not has_word(text)


# A piece of one to ten letters that follows itself four times within a word: "уѺуѺуѺуѺуѺ", "aaaaa".
_WITHIN = regex.compile(r"([\p{L}\p{M}]{1,10}?)\1{4,}", regex.V1)


def _ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def is_repetitive(text: str) -> bool:
    """Whether a word 4-gram occurs three times or more, a word three times in a row, or a piece of a word five times.

    Occurrences may overlap, so two words that alternate for eight words are repetitive. Where most words are single
    characters (of Chinese, Japanese, Thai, …) it is 8-grams: four words of such a script have some eight characters.
    There a character may end one word and begin the next, so that three of them are no word three times (นกกกไข่).
    A number is a word as any other, so "555 555 555" is repetitive: the share is read beside the retrained model's,
    which writes such a number as often.
    """
    if _WITHIN.search(text):
        return True
    tokens = words(text)
    n = 8 if 2 * sum(map(is_character, tokens)) > len(tokens) else 4
    if any(
        a == b == c and not is_character(a) for a, b, c in zip(tokens, tokens[1:], tokens[2:], strict=False)
    ):
        return True
    return max(Counter(_ngrams(tokens, n)).values(), default=0) >= 3


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Different word n-grams over all word n-grams of all texts together (Li et al. 2016, arXiv 1510.03055).

    In [0, 1], higher is more varied; 0 where no text has n words. N-grams do not cross from text to text.
    """
    grams = [gram for text in texts for gram in _ngrams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def broken_shares(texts: Sequence[str], finished: Sequence[bool]) -> dict[str, float]:
    """`empty`, `unfinished` (no end-of-text), `repetitive`: shares in [0, 1], lower is better.

    Raises:
        ValueError: There are no texts, or the two differ in length.
    """
    if not texts or len(texts) != len(finished):
        raise ValueError(f"{len(texts)} texts and {len(finished)} flags; one flag a text, at least one")
    count = len(texts)
    return {
        "empty": sum(map(is_empty, texts)) / count,
        "unfinished": sum(not flag for flag in finished) / count,
        "repetitive": sum(map(is_repetitive, texts)) / count,
    }


def is_unfinished(finished: bool) -> bool:
    """Whether an answer has no end-of-text."""
    return not finished


def distinct_2(records: Records) -> float:
    """`distinct_n` of the records' responses, n = 2."""
    return distinct_n([r["response"] for r in records], 2)


def mean_length(records: Records) -> float:
    """Words in a response, empty ones included."""
    return sum(len(words(r["response"])) for r in records) / len(records)
