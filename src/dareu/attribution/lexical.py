"""Attributors without a network: TF-IDF and logistic regression, or nearest centroids where owners are many.

Cheap, and trained apart from any language model. `char` evaluates the finished run and is never part of a reward;
`word` tells a run when to stop, or with `attributor.name=lexical` gives the reward.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse
from scipy.special import expit, softmax

from dareu.attribution.base import WholeTextAttributor, class_count, owned_responses, uniform
from dareu.attribution.centroids import CentroidModel
from dareu.attribution.score import owner_index
from dareu.attribution.tfidf import Features, TfIdf
from dareu.data.corpus import Sample
from dareu.errors import DataError, ModelError

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
        remembered text come near 1. `DataError` for fewer than two owners.
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
        state = json.loads((Path(folder) / "attributor.json").read_text(encoding="utf-8"))
        if state["kind"] != cls.kind:
            raise ModelError(f"{folder} holds an attributor of the kind '{state['kind']}', not '{cls.kind}'.")
        arrays = load_file(str(Path(folder) / "lexical.safetensors"))
        vectorizer = TfIdf(state["features"], state["vocabulary"], arrays["idf"])
        if "scale" in arrays:
            return cls(state["owners"], vectorizer, CentroidModel.from_arrays(arrays))
        return cls(state["owners"], vectorizer, LinearModel(arrays["coef"], arrays["intercept"]))
