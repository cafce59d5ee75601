"""Whose text an answer reads like, by the class probabilities of one attributor or of several. NumPy alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dareu.attribution.base import Attributor, scores_of
from dareu.attribution.score import expected_calibration_error, forget_mass, owner_index, reattribution_shares
from dareu.evaluation.metrics.base import Record, Records, Values


class Attributions(NamedTuple):
    """An attributor's view of the answers: `probabilities(texts)` is (B, C), the columns are `owners`, then maybe a
    background class. `threshold`: from where on an answer counts as confidently attributed."""

    probabilities: Callable[[Sequence[str]], np.ndarray]
    owners: Sequence[str]
    forget_owners: Sequence[str]
    threshold: float


def attribution_mass(records: Records, name: str, **inputs: Attributions) -> Values:
    """Σ_{j∈F} p(j | answer), in [0, 1], by the attributor that the input `name` holds."""
    by = inputs[name]
    probs = by.probabilities([r["response"] for r in records])
    return [float(mass) for mass in forget_mass(probs, by.owners, by.forget_owners)]


def reattributed(records: Records, name: str, **inputs: Attributions) -> Values:
    """1 where the answer is attributed with confidence to one owner that the question is not about, else 0."""
    by = inputs[name]
    probs = by.probabilities([r["response"] for r in records])
    shares = reattribution_shares(probs, by.owners, [r["owner"] for r in records], by.threshold)
    return [float(share) for share in shares]


def reliability(attributor: Attributor, records: Sequence[Record]) -> dict[str, float | int]:
    """Accuracy, expected calibration error and chance, each in [0, 1], on answers whose owner is known.

    Args:
        records: `response` and `owner`; those of owners that the attributor does not know, and without one, are left
            out. `n` of them count.
    """
    known = [r for r in records if r.get("owner") in attributor.owners]
    if not known:
        return {"n": 0}
    probs = scores_of(attributor, [str(r["response"]) for r in known])
    labels = np.array(owner_index(attributor.owners, [str(r["owner"]) for r in known]))
    return {
        "n": len(known),
        "accuracy": float((probs.argmax(axis=1) == labels).mean()),
        "calibration_error": expected_calibration_error(probs, labels),
        "chance": 1 / len(attributor.owners),
    }


def attribution_audit(
    attributors: Mapping[str, Attributor],
    records: Mapping[str, Sequence[Record]],
    forget_owners: Sequence[str],
    reward: str | None = None,
) -> dict[str, Any]:
    """The table of the audit.

    Args:
        attributors: by column.
        records: by model ("original", "retrained", any unlearned ones), each the records of one evaluation with
            `set`, `owner` and `response`.
        reward: the column that a reward listened to; its figure is no evidence.

    Returns:
        `columns` (the names), `reward`, `rows` (model → column → mean mass on the forget owners over forget answers,
        in [0, 1]) and `reliability` (column → see `reliability`, on the retrained model's retain answers; of the
        original's where there is no retrained model), `reliability_of` (which model).
    """
    reference = next((name for name in ("retrained", "original") if name in records), None)
    rows: dict[str, dict[str, float | None]] = {}
    for model, mine in records.items():
        texts = [str(r["response"]) for r in mine if r["set"] == "forget"]
        rows[model] = {}
        for name, attributor in attributors.items():
            mass = forget_mass(scores_of(attributor, texts), attributor.owners, forget_owners)
            rows[model][name] = float(mass.mean()) if texts else None
    retain = [r for r in records[reference] if r["set"] == "retain"] if reference else []
    return {
        "columns": list(attributors),
        "reward": reward,
        "rows": rows,
        "reliability": {name: reliability(a, retain) for name, a in attributors.items()} if reference else {},
        "reliability_of": reference,
    }
