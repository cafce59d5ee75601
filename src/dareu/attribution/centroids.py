"""Nearest centroids over TF-IDF vectors: a classifier whose cost is linear in the texts, whatever the owners.

Multinomial logistic regression costs texts × owners a step, and its weights owners × features. Here the weights are the
owners' mean vectors, which are sparse, and one number, the scale of the cosines, is fitted (Rocchio's classifier with a
softmax over its similarities).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import softmax

from dareu.attribution.calibration import fit_temperature
from dareu.attribution.tfidf import unit_rows

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
