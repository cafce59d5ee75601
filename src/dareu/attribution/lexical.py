"""Attributors without a network: TF-IDF and logistic regression, or nearest centroids where owners are many.

Cheap, and trained apart from any language model. `char` evaluates the finished run and is never part of a reward;
`word` tells a run when to stop, or with `attributor.name=lexical` gives the reward.

TF-IDF is of our own, with the numbers of scikit-learn's `TfidfVectorizer` with `sublinear_tf`: an evaluation reads such
vectors and trains nothing, and importing scikit-learn takes a second and more memory than a small model. With nearest
centroids (Rocchio's classifier with a softmax over its similarities) the weights are the owners' mean vectors, and the
cost is linear in the texts, whatever the owners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse
from scipy.special import expit, softmax

from dareu.attribution.base import WholeTextAttributor, class_count, owned_responses, uniform
from dareu.attribution.score import fit_temperature, owner_index
from dareu.data.corpus import Sample
from dareu.data.words import pieces
from dareu.errors import DataError, ModelError
from dareu.runs.files import read_json

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
        """The vocabulary and the weights of `texts`.

        Raises:
            ValueError: They have no n-gram at all.
        """
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


# Texts that the scale is fitted on, drawn evenly; bounds of 1 / scale.
FITTED_ON = 1000
BOUNDS = (0.005, 1.0)


class CentroidModel:
    """softmax(scale · cosine(text, centroid of each owner)). `centroids` (C, F) is sparse with rows of length 1."""

    def __init__(self, centroids: sparse.csr_matrix, scale: float) -> None:
        self.centroids = centroids
        self.scale = scale

    @classmethod
    def fit(cls, features: sparse.csr_matrix, labels: np.ndarray, classes: int) -> CentroidModel:
        """`features` (N, F) with rows of length 1, `labels` (N,) in 0..classes−1, each class at least once.

        The scale minimises the negative log-likelihood of texts that are taken out of their own centroid first;
        texts of owners with one text alone are left out there.
        """
        members = sparse.csr_matrix(
            (np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(classes, len(labels))
        )
        sums = members @ features
        centroids = unit_rows(sums)
        several = np.flatnonzero(np.bincount(labels, minlength=classes)[labels] > 1)
        chosen = several[:: max(1, len(several) // FITTED_ON)]
        if not len(chosen):
            return cls(centroids, 1.0 / BOUNDS[0] ** 0.5)
        texts, own = features[chosen], labels[chosen]
        cosines = (texts @ centroids.T).toarray()
        without = unit_rows(sums[own] - texts)
        cosines[np.arange(len(chosen)), own] = np.asarray(texts.multiply(without).sum(1)).ravel()
        return cls(centroids, 1.0 / fit_temperature(cosines, own, BOUNDS))

    def predict_proba(self, features: Any) -> np.ndarray:
        """(N, C)."""
        probabilities: np.ndarray = softmax(self.scale * (features @ self.centroids.T).toarray(), axis=1)
        return probabilities

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` reads: the sparse matrix by its parts, and the scale."""
        parts = {name: getattr(self.centroids, name) for name in ("data", "indices", "indptr")}
        return {**parts, "shape": np.array(self.centroids.shape), "scale": np.array([self.scale])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> CentroidModel:
        parts = tuple(arrays[name] for name in ("data", "indices", "indptr"))
        matrix = sparse.csr_matrix(parts, shape=tuple(int(n) for n in arrays["shape"]))
        return cls(matrix, float(arrays["scale"][0]))


MANY = 64  # owners from which on logistic regression takes too long


class LinearModel(NamedTuple):
    """Logistic regression: `coef` (C, F), `intercept` (C,); one row of each for two classes."""

    coef: np.ndarray
    intercept: np.ndarray

    @classmethod
    def fit(cls, features: sparse.csr_matrix, labels: np.ndarray, strength: float, seed: int) -> LinearModel:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=strength, max_iter=1000, random_state=seed).fit(features, labels)
        return cls(model.coef_, model.intercept_)

    def predict_proba(self, features: sparse.csr_matrix) -> np.ndarray:
        """(N, C) of features (N, F)."""
        scores = features @ self.coef.T + self.intercept
        if scores.shape[1] == 1:
            second = expit(scores)
            return np.hstack([1 - second, second])
        probabilities: np.ndarray = softmax(scores, axis=1)
        return probabilities

    def arrays(self) -> dict[str, np.ndarray]:
        return self._asdict()


class LexicalAttributor(WholeTextAttributor):
    """A linear classifier on character (`char`, 2–5) or word (`word`, 1–2) n-grams; no background class.

    Logistic regression up to `MANY` owners, nearest centroids above.
    """

    kind = "lexical"

    def __init__(
        self,
        owners: Sequence[str],
        vectorizer: TfIdf,
        model: LinearModel | CentroidModel,
    ) -> None:
        self.owners = list(owners)
        self.features = vectorizer.features
        self.vectorizer = vectorizer
        self.model = model

    @classmethod
    def fit(
        cls, samples: Sequence[Sample], kind: Features = "char", seed: int = 0, strength: float = 30.0
    ) -> LexicalAttributor:
        """Train on the responses of owned samples.

        `strength` is scikit-learn's C, the inverse of the regularisation: high, so that probabilities on
        remembered text come near 1.

        Raises:
            DataError: There are fewer than two owners.
        """
        owned, owners = owned_responses(samples)
        texts = [sample.response for sample in owned]
        try:
            vectorizer = TfIdf.fit(texts, kind)
        except ValueError as error:
            raise DataError(
                f"No response has a word to learn from ({error}).", "Check the response column."
            ) from None
        features = vectorizer.transform(texts)
        labels = np.array(owner_index(owners, [str(sample.owner) for sample in owned]))
        if len(owners) > MANY:
            return cls(owners, vectorizer, CentroidModel.fit(features, labels, len(owners)))
        return cls(owners, vectorizer, LinearModel.fit(features, labels, strength, seed))

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(B, C), float64; a text with no known n-gram (an empty one, say) scores uniformly."""
        probs = uniform(len(texts), class_count(self))
        if len(texts):
            features = self.vectorizer.transform(texts)
            some = np.flatnonzero(features.getnnz(axis=1))
            if len(some):
                probs[some] = self.model.predict_proba(features[some])
        return probs

    def save(self, folder: Path) -> None:
        """`attributor.json` (owners, vocabulary), `lexical.safetensors` (idf, weights): nothing pickled."""
        state = {"kind": self.kind, "owners": self.owners, "nobody": False, "features": self.features}
        self.write_state(folder, "attributor.json", state | {"vocabulary": list(self.vectorizer.vocabulary)})
        weights = {"idf": self.vectorizer.idf, **self.model.arrays()}
        arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
        save_file(arrays, str(folder / "lexical.safetensors"))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> LexicalAttributor:
        """What `save` wrote, with the same probabilities. `device` is taken for the interface alone."""
        state = read_json(Path(folder) / "attributor.json")
        if state["kind"] != cls.kind:
            raise ModelError(f"{folder} holds an attributor of the kind '{state['kind']}', not '{cls.kind}'.")
        arrays = load_file(str(Path(folder) / "lexical.safetensors"))
        vectorizer = TfIdf(state["features"], state["vocabulary"], arrays["idf"])
        if "scale" in arrays:
            return cls(state["owners"], vectorizer, CentroidModel.from_arrays(arrays))
        return cls(state["owners"], vectorizer, LinearModel(arrays["coef"], arrays["intercept"]))
