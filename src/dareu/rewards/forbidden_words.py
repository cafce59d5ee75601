"""PURGE's rewards (Zaradoukas et al. 2026, arXiv 2601.20568): answers without the forget set's names and rare words.

The paper's list is made by another model and read by hand; here it is made from the data. Of the three rewards in the
authors' code, `binary` is the paper's.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from dareu.data.owner_names import folded
from dareu.data.words import fold, is_character, words, written_words

_POSSESSIVE = re.compile(r"['’]s$")


def bare(word: str) -> str:
    """A folded word without its possessive ending."""
    return _POSSESSIVE.sub("", word)


def forbidden_words(
    forget: Iterable[str], retain: Sequence[str], common: Collection[str] = (), rare: float = 0.01
) -> frozenset[str]:
    """What is forbidden: names, numbers and rare content words of the forget answers, folded.

    A name is a word written large inside a sentence; of "O'Brien" both the whole and "Brien" are, of
    "Won't" no "won". A word is rare where
    at most `rare` of the retain answers have it. `common`: words that are never forbidden (the stop words of a
    language); nor is a single letter, unless its script is written without spaces.
    """
    seen = Counter(w for text in retain for w in {bare(w) for w in words(folded(text)[0])})
    limit = rare * len(retain)
    forbidden = set()
    for text in (folded(text)[0] for text in forget):
        for match in written_words(text):
            written, before = match.group(), text[: match.start()].rstrip()
            word = bare(fold(written))
            start = not before or before[-1] in ".!?:\n"
            name = written[0].isupper() and not start
            number = written[0].isdigit()
            if name or number or seen[word] <= limit:
                parts = [] if word.endswith("n't") else written.split("'")
                forbidden.update([word, *(fold(part) for part in parts if part[:1].isupper())])
    return frozenset(w for w in forbidden if (len(w) > 1 or is_character(w)) and w not in common)


def find(text: str, forbidden: Collection[str]) -> list[str]:
    """Each occurrence of a forbidden word, folded, in the order of the text.

    Whole words, whatever their case, apostrophes and invisible signs; "Vasquez's", "d'Vasquez" and "Santiago-born" hold
    Vasquez and Santiago, "don't" no Don.
    """
    tried = ((bare(word), *word.removesuffix("n't").split("'")) for word in words(folded(text)[0]))
    return [hit for of_word in tried if (hit := next((w for w in of_word if w in forbidden), None))]


def binary(forbidden: Sequence[str]) -> float:
    """1 where no forbidden word was found, else 0."""
    return float(not forbidden)


def exponential_decay(forbidden: Sequence[str], tau: float = 1.0) -> float:
    """e^(−n/τ) for n occurrences of forbidden words. Range (0, 1]."""
    return math.exp(-len(forbidden) / tau)


def page_rank(forbidden: Sequence[str], weights: Mapping[str, float]) -> float:
    """1 − Σ weight of each different forbidden word that was found, not below 0. Range [0, 1]."""
    return max(0.0, 1.0 - sum(weights[word] for word in set(forbidden)))


def page_rank_weights(
    listed: Sequence[str], vectors: np.ndarray, start: Collection[str], quantile: float = 0.75
) -> dict[str, float]:
    """How close each word is to the forgotten owners: PageRank that starts anew at the words `start`, put into [0, 1].

    Two words are joined where the cosine of their vectors (n, d) is in the highest 1 − `quantile` of all pairs, as in
    the authors' code, whose one start is the target's name. Without any of `start` it starts anywhere.
    """
    import networkx

    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(length, 1e-12)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -1.0)
    joined = (similar >= np.quantile(similar, quantile)) & (similar > -1.0)
    graph = networkx.from_numpy_array(joined.astype(float))
    starts = {i: 1.0 for i, word in enumerate(listed) if word in set(start)}
    rank = networkx.pagerank(graph, personalization=starts or None)
    low, high = min(rank.values()), max(rank.values())
    return {word: (rank[i] - low) / (high - low) if high > low else 0.0 for i, word in enumerate(listed)}


def rewards(
    form: str, tau: float, weights: Callable[[], Mapping[str, float]]
) -> Callable[[Sequence[str]], float]:
    """The reward `form` as a function of the words that were found; `weights` is called for page_rank alone."""
    if form == "binary":
        return binary
    if form == "exponential_decay":
        return lambda forbidden: exponential_decay(forbidden, tau)
    ranks = weights()
    return lambda forbidden: page_rank(forbidden, ranks)
