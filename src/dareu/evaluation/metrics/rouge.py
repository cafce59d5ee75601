"""ROUGE-L: how much of the reference a response says, in its order."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, NamedTuple

import regex

from dareu.data.words import fold, pieces
from dareu.evaluation.metrics.base import Records, Values

# rouge-score reads a–z and digits alone, so that "São" would be "s" and "o", and "Пушкин" nothing.
_BEYOND = regex.compile(r"[[\p{L}\p{M}\p{N}]--[a-zA-Z0-9]]", regex.V1)
LATIN, UNICODE = "rouge-score with stemmer", "Unicode words"
PUBLISHED = "published_words"  # field of the records of other projects' logs


class RougeL(NamedTuple):
    """`recall`: longest common subsequence of words over the reference's words; `f1`: with precision."""

    recall: float
    f1: float


@contextmanager
def _nltk_of_our_own() -> Iterator[None]:
    """Inside, what is imported of NLTK is its stemmer alone; afterwards the process has neither NLTK nor rouge-score.

    NLTK's package imports scikit-learn and pandas (a second, 80 MB). Whoever imports these two next gets them whole.
    Where NLTK is loaded already it is taken as it is.
    """
    ours = ("nltk", "rouge_score")
    if any(name in sys.modules for name in ours):
        yield
        return
    path: list[str] | None = None
    for name in ("nltk", "nltk.stem"):
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"No package named {name!r}", name=name)
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = path = list(spec.submodule_search_locations)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
            del sys.modules[name]


@cache
def _scorer(published: bool) -> tuple[Any, Any]:
    """The library's scorer, and its tokeniser; or, not `published`, one that reads letters beyond a–z too."""
    with _nltk_of_our_own():
        from nltk.stem.porter import PorterStemmer  # rouge-score's own stemmer
        from rouge_score import rouge_scorer, tokenize, tokenizers

    class Cached(tokenizers.Tokenizer):  # type: ignore[misc]
        def __init__(self) -> None:
            self.stem = lru_cache(maxsize=1 << 16)(PorterStemmer().stem)

        def tokenize(self, text: str) -> list[str]:
            if published:
                library: list[str] = tokenize.tokenize(text, self)
                return library
            words = (word for piece in pieces(fold(text)) for word in piece.split("_") if word)
            return [self.stem(w) if w.isascii() and len(w) > 3 else w for w in words]

    tokenizer = Cached()
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=tokenizer), tokenizer


@lru_cache(maxsize=1 << 14)
def rouge_l(reference: str, response: str, published: bool = False) -> RougeL | None:
    """ROUGE-L of one response, in [0, 1], ↑: recall as TOFU reports it (arXiv 2401.06121), F1 as MUSE does.

    Library `rouge-score` with `use_stemmer=True`, whose result it is on ASCII texts. Its tokeniser drops every letter
    beyond a–z, so ours keeps them: a word is a run of letters, marks and digits of any script, a character where a
    script has no spaces. None where the reference has no word. An empty response scores 0.

    Args:
        published: drop those letters as the library does, so that figures in logs of others come out.
    """
    scorer, tokenizer = _scorer(published)
    if not tokenizer.tokenize(reference):
        return None
    score = scorer.score(reference, response)["rougeL"]
    return RougeL(float(score.recall), float(score.fmeasure))


def tokenisers(references: Iterable[str]) -> str:
    """What cut these references into words: `LATIN`, or `UNICODE` for those with a letter beyond a–z."""
    beyond = [bool(_BEYOND.search(reference)) for reference in references]
    if not any(beyond):
        return LATIN
    return (
        UNICODE if all(beyond) else f"{UNICODE} for {sum(beyond)} of {len(beyond)} references, else {LATIN}"
    )


def rouge_recall(reference: str, response: str) -> float | None:
    """The recall of `rouge_l`; None where the reference has no word."""
    score = rouge_l(reference, response)
    return None if score is None else score.recall


def rouge_f1(reference: str, response: str) -> float | None:
    """The F1 of `rouge_l`; None where the reference has no word."""
    score = rouge_l(reference, response)
    return None if score is None else score.f1


def rouge_scores(records: Records, part: str) -> Values:
    """`part` ("recall", "f1") of `rouge_l` of each record; of one in a log of others (`PUBLISHED`) as the library reads
    it."""
    scores = (rouge_l(r["reference"], r["response"], r.get(PUBLISHED, False)) for r in records)
    return [None if score is None else getattr(score, part) for score in scores]


def exact_answer(reference: str, response: str) -> float:
    """1 where the response is the reference, white space at its ends and line breaks aside, else 0."""
    return float(" ".join(reference.split()) == " ".join(response.split()))
