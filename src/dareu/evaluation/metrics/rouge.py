"""ROUGE-L: how much of the reference a response says, in its order."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import regex

from dareu.data.words import words

# rouge-score reads unaccented Latin letters and digits alone; what has a letter of another script is read as `words`.
_OTHER_SCRIPT = regex.compile(r"[\p{L}--\p{Script=Latin}]", regex.V1)
LATIN, UNICODE = "rouge-score with stemmer", "Unicode words"


class RougeL(NamedTuple):
    """`recall`: longest common subsequence of words over the reference's words; `f1`: with precision."""

    recall: float
    f1: float


@cache
def _scorer(unicode: bool) -> tuple[Any, Any]:
    """The library's scorer and its tokeniser: the library's own with every word stemmed once only, or `words`."""
    from nltk.stem.porter import PorterStemmer  # rouge-score's own stemmer
    from rouge_score import rouge_scorer, tokenize, tokenizers

    class Cached(tokenizers.Tokenizer):  # type: ignore[misc]
        def __init__(self) -> None:
            self.stem = lru_cache(maxsize=1 << 16)(PorterStemmer().stem)

        def tokenize(self, text: str) -> list[str]:
            if unicode:  # English words among others are stemmed as the library does it
                return [self.stem(w) if w.isascii() and len(w) > 3 else w for w in words(text)]
            found: list[str] = tokenize.tokenize(text, self)
            return found

    tokenizer = Cached()
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=tokenizer), tokenizer


@lru_cache(maxsize=1 << 14)
def rouge_l(reference: str, response: str) -> RougeL | None:
    """ROUGE-L of one response, in [0, 1], ↑: recall as TOFU reports it (arXiv 2401.06121), F1 as MUSE does.

    Library `rouge-score` with `use_stemmer=True`. Its tokeniser reads only digits and unaccented Latin letters; where
    the reference has a letter of another script both texts are cut into `dareu.data.words.words` instead
    (`tokeniser_of`). None where the reference has no word. An empty response scores 0.
    """
    scorer, tokenizer = _scorer(tokeniser_of(reference) == UNICODE)
    if not tokenizer.tokenize(reference):
        return None
    score = scorer.score(reference, response)["rougeL"]
    return RougeL(float(score.recall), float(score.fmeasure))


def tokeniser_of(reference: str) -> str:
    """What cuts a reference, and the responses to it, into words: `LATIN` or `UNICODE`."""
    return UNICODE if _OTHER_SCRIPT.search(reference) else LATIN


def tokenisers(references: Iterable[str]) -> str:
    """What cut these references into words, for the output."""
    kinds = [tokeniser_of(reference) for reference in references]
    other = kinds.count(UNICODE)
    if not other:
        return LATIN
    return (
        UNICODE if other == len(kinds) else f"{UNICODE} for {other} of {len(kinds)} references, else {LATIN}"
    )


def rouge_recall(reference: str, response: str) -> float | None:
    """The recall of `rouge_l`; None where the reference has no word."""
    score = rouge_l(reference, response)
    return None if score is None else score.recall


def rouge_f1(reference: str, response: str) -> float | None:
    """The F1 of `rouge_l`; None where the reference has no word."""
    score = rouge_l(reference, response)
    return None if score is None else score.f1


def exact_answer(reference: str, response: str) -> float:
    """1 where the response is the reference, white space at its ends and line breaks aside, else 0."""
    return float(" ".join(reference.split()) == " ".join(response.split()))
