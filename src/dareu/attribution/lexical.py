"""Attributors without a network: TF-IDF and logistic regression, or nearest centroids where owners are many.

Cheap, and trained apart from any language model. `char` evaluates the finished run and is never part of a reward;
`word` tells a run when to stop, or with `attributor.name=lexical` gives the reward.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from dareu.attribution.base import WholeTextAttributor, class_count, owned_responses, uniform
from dareu.attribution.centroids import CentroidModel
from dareu.attribution.score import owner_index
from dareu.data.corpus import Sample
from dareu.data.words import pieces
from dareu.errors import DataError, ModelError

LexicalKind = Literal["char", "word"]
MANY = 64  # owners from which on logistic regression takes too long

FEATURES: dict[str, dict[str, Any]] = {
    "char": {"analyzer": "char_wb", "ngram_range": (2, 5), "sublinear_tf": True},
    # the default word pattern drops one-letter words and, with them, many CJK words
    "word": {
        "analyzer": "word",
        "ngram_range": (1, 2),
        "sublinear_tf": True,
        "tokenizer": pieces,
        "token_pattern": None,
    },
}


class LexicalAttributor(WholeTextAttributor):
    """A linear classifier on character (`char`, 2–5) or word (`word`, 1–2) n-grams; no background class.

    Logistic regression up to `MANY` owners, nearest centroids above.
    """

    kind = "lexical"

    def __init__(
        self,
        owners: Sequence[str],
        features: LexicalKind,
        vectorizer: TfidfVectorizer,
        model: LogisticRegression | CentroidModel,
    ) -> None:
        self.owners = list(owners)
        self.features = features
        self.vectorizer = vectorizer
        self.model = model

    @classmethod
    def fit(
        cls, samples: Sequence[Sample], kind: LexicalKind = "char", seed: int = 0, strength: float = 30.0
    ) -> LexicalAttributor:
        """Train on the responses of owned samples.

        `strength` is scikit-learn's C, the inverse of the regularisation: high, so that probabilities on
        remembered text come near 1. `DataError` for fewer than two owners.
        """
        owned, owners = owned_responses(samples)
        vectorizer = TfidfVectorizer(**FEATURES[kind])
        try:
            features = vectorizer.fit_transform([sample.response for sample in owned])
        except ValueError as error:
            raise DataError(
                f"No response has a word to learn from ({error}).", "Check the response column."
            ) from None
        labels = np.array(owner_index(owners, [str(sample.owner) for sample in owned]))
        if len(owners) > MANY:
            return cls(owners, kind, vectorizer, CentroidModel.fit(features, labels, len(owners)))
        model = LogisticRegression(C=strength, max_iter=1000, random_state=seed)
        model.fit(features, labels)
        return cls(owners, kind, vectorizer, model)

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
        vocabulary = sorted(self.vectorizer.vocabulary_, key=self.vectorizer.vocabulary_.__getitem__)
        state = {"kind": self.kind, "owners": self.owners, "nobody": False, "features": self.features}
        self.write_state(folder, "attributor.json", state | {"vocabulary": vocabulary})
        weights = {"idf": self.vectorizer.idf_}
        if isinstance(self.model, CentroidModel):
            weights |= self.model.arrays()
        else:
            weights |= {"coef": self.model.coef_, "intercept": self.model.intercept_}
        arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
        save_file(arrays, str(folder / "lexical.safetensors"))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> LexicalAttributor:
        """What `save` wrote, with the same probabilities. `device` is taken for the interface alone."""
        state = json.loads((Path(folder) / "attributor.json").read_text(encoding="utf-8"))
        if state["kind"] != cls.kind:
            raise ModelError(f"{folder} holds an attributor of the kind '{state['kind']}', not '{cls.kind}'.")
        arrays = load_file(str(Path(folder) / "lexical.safetensors"))
        vectorizer = TfidfVectorizer(**FEATURES[state["features"]], vocabulary=state["vocabulary"])
        vectorizer.idf_ = arrays["idf"]
        if "scale" in arrays:
            found = CentroidModel.from_arrays(arrays)
            return cls(state["owners"], state["features"], vectorizer, found)
        model = LogisticRegression()
        model.classes_ = np.arange(len(state["owners"]))
        model.coef_, model.intercept_ = arrays["coef"], arrays["intercept"]
        return cls(state["owners"], state["features"], vectorizer, model)
