"""From class probabilities to the figures that rewards and evaluation use. Numpy alone."""

from collections.abc import Sequence

import numpy as np

from dareu.errors import DataError, nearest


def owner_index(owners: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Column of each wanted owner; `DataError` for one that the attributor does not know."""
    column = {owner: index for index, owner in enumerate(owners)}
    for owner in wanted:
        if owner not in column:
            raise DataError(f"The attributor does not know the owner '{owner}'.", nearest(str(owner), owners))
    return [column[owner] for owner in wanted]


def forget_mass(probs: np.ndarray, owners: Sequence[str], forget_owners: Sequence[str]) -> np.ndarray:
    """Σ_{j∈F} p(j|y): (..., C) → (...), in [0, 1]. DareU's attribution score, over the whole forget set."""
    columns = sorted(set(owner_index(owners, forget_owners)))
    mass: np.ndarray = np.asarray(probs)[..., columns].sum(axis=-1)
    return mass


def reattribution_shares(
    probs: np.ndarray, owners: Sequence[str], query_owners: Sequence[str], threshold: float = 0.9
) -> np.ndarray:
    """Which responses have p > `threshold` for one owner that is not the owner their query asks about: (B,) bool.

    `probs` is (B, C), `query_owners` has B names. The background class is no owner and never counts.
    """
    others = np.array(probs, dtype=float)[:, : len(owners)]
    if len(others) != len(query_owners):
        raise ValueError(f"{len(others)} rows of probabilities, {len(query_owners)} query owners")
    if not len(others):
        return np.zeros(0, dtype=bool)
    others[np.arange(len(others)), owner_index(owners, query_owners)] = 0.0
    confident: np.ndarray = others.max(axis=1) > threshold
    return confident
