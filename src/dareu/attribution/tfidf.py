"""TF-IDF vectors of texts, the numbers of scikit-learn's `TfidfVectorizer` with `sublinear_tf`.

Of our own, since an evaluation reads such vectors and trains nothing: importing scikit-learn (with pandas, where it is
installed) takes a second and more memory than a small model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import sparse

from dareu.data.words import pieces

Features = Literal["char", "word"]


def grams(text: str, features: Features) -> list[str]:
    """The n-grams of a text in lower case: `char`, 2 to 5 characters of each word with a blank at both sides; `word`,
    one or two words (of one letter too, and of scripts without spaces)."""
    text = text.lower()
    if features == "word":
        words = pieces(text)
        return words + [f"{one} {other}" for one, other in zip(words, words[1:], strict=False)]
    ngrams = []
    for word in text.split():
        padded = f" {word} "
        for n in range(2, 6):
            ngrams += [padded[i : i + n] for i in range(max(1, len(padded) - n + 1))]
            if n >= len(padded):  # a short word as a whole, once
                break
    return ngrams


class TfIdf:
    """(1 + ln count) · idf of each n-gram of the vocabulary, rows of length 1; n-grams that it has not are left out.

    Attributes:
        vocabulary: n-gram → column, sorted.
        idf: (F,), 1 + ln((1 + texts) / (1 + texts with the n-gram)).
    """

    def __init__(self, features: Features, vocabulary: Sequence[str], idf: np.ndarray) -> None:
        self.features = features
        self.vocabulary = {gram: column for column, gram in enumerate(vocabulary)}
        self.idf = idf

    @classmethod
    def fit(cls, texts: Sequence[str], features: Features) -> TfIdf:
        """The vocabulary and the weights of `texts`; `ValueError` where they have no n-gram at all."""
        having = Counter(gram for text in texts for gram in set(grams(text, features)))
        if not having:
            raise ValueError("empty vocabulary")
        vocabulary = sorted(having)
        counts = np.array([having[gram] for gram in vocabulary])
        return cls(features, vocabulary, np.log((1 + len(texts)) / (1 + counts)) + 1.0)

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """(N, F), float64; a row of a text without a known n-gram is empty."""
        data: list[float] = []
        columns: list[int] = []
        starts = [0]
        for text in texts:
            known = (self.vocabulary.get(gram) for gram in grams(text, self.features))
            counts = sorted(Counter(column for column in known if column is not None).items())
            columns += [column for column, _ in counts]
            data += [count for _, count in counts]
            starts.append(len(columns))
        values = (np.log(np.array(data, dtype=float)) + 1.0) * self.idf[np.array(columns, dtype=int)]
        shape = (len(texts), len(self.vocabulary))
        return unit_rows(sparse.csr_matrix((values, columns, starts), shape=shape))


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows divided by their Euclidean lengths; empty rows stay empty."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scaled = matrix.tocsr(copy=True)
    scaled.data /= np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(scaled.indptr))
    return scaled
