"""Figures of a part of the forget set: the owners of one request among all that have been forgotten. Pure."""

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

KEYS = ("rouge_l", "probability", "attribution", "attribution_heldout")


def forget_figures(records: Sequence[Mapping[str, Any]], owners: Collection[str]) -> dict[str, Any]:
    """Means over the forget records of `owners` (records of `suite.Evaluation`), each 0 to 1, and `n` of them.

    Records without a figure do not count in its mean; it is None where none has it. Attribution is the mass on the
    whole forget set of the evaluation, so that an answer that points to another forgotten owner counts as well.
    """
    chosen = [r for r in records if r["set"] == "forget" and r["owner"] in owners]
    found: dict[str, Any] = {"n": len(chosen)}
    for key in KEYS:
        values = [float(r[key]) for r in chosen if r.get(key) is not None]
        found[key] = fmean(values) if values else None
    return found
