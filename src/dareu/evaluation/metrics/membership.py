"""Membership inference: does a score of each sample separate the forget set from a held-out set? NumPy alone."""

from collections.abc import Sequence

import numpy as np

from dareu.evaluation.metrics.base import Records, Values


def placements(scores: Sequence[float], holdout: Sequence[float]) -> np.ndarray:
    """For each score the share of `holdout` that lies below it, ties counted half: (n,), in [0, 1].

    Their mean is the area under the ROC curve.

    Raises:
        ValueError: for an empty holdout.
    """
    if not len(holdout):
        raise ValueError("the held-out set has no scores")
    ranked = np.sort(np.asarray(holdout, dtype=float))
    below = np.searchsorted(ranked, scores, side="left")
    upto = np.searchsorted(ranked, scores, side="right")
    shares: np.ndarray = (below + upto) / (2 * len(ranked))
    return shares


def auc(scores: Sequence[float], holdout: Sequence[float]) -> float:
    """Probability that a forget sample scores higher than a held-out one. In [0, 1]; .5 says nothing."""
    return float(placements(scores, holdout).mean())


def attack(records: Records, holdout: Records, field: str) -> Values:
    """The attack by the score in `field`, higher for members: `placements` among the held-out records."""
    others = [r[field] for r in holdout if r.get(field) is not None]
    kept = [(i, r[field]) for i, r in enumerate(records) if r.get(field) is not None]
    shares = placements([score for _, score in kept], others)
    placed: Values = [None] * len(records)
    for (i, _), share in zip(kept, shares, strict=True):
        placed[i] = float(share)
    return placed


def holdout_placements(records: Records, holdout: Records, field: str) -> Values:
    """For each held-out record the share of `records` whose score is higher, ties counted half; mean: the AUC."""
    flipped = attack(holdout, records, field)  # ties stay halves
    return [None if share is None else 1 - share for share in flipped]


def privleak(auc_unlearned: float, auc_retrained: float) -> float:
    """100 · ((1 − AUC_u) − (1 − AUC_r)) / (1 − AUC_r): 0 is best, above 0 forgotten too hard, below 0 too little.

    MUSE (Shi et al. 2024, arXiv 2407.06460), on min-k 40 %. Read beside the retrained model's own AUC, which need not
    be .5.

    Raises:
        ValueError: where AUC_r is 1.
    """
    if auc_retrained >= 1:
        raise ValueError("the retrained model's AUC is 1, so PrivLeak is not defined")
    return 100 * (auc_retrained - auc_unlearned) / (1 - auc_retrained)
