"""Every metric by its name: what it says, its range, where it should go. No torch here.

Other packages add their own by an entry point in the group `dareu.metrics`: a function that takes the records
of one model (`list[dict]`, see `dareu.evaluation.suite`) and gives a dict of figures, kept as `extra.<name>`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Literal, NamedTuple

Records = list[dict[str, Any]]
ExtraMetric = Callable[[Records], dict[str, Any]]
Direction = Literal["higher", "lower", "as retrained"]
GROUP = "dareu.metrics"


class Metric(NamedTuple):
    """`better`: "as retrained" means that the closer to the retrained model, the better."""

    meaning: str
    range: str
    better: Direction


METRICS: dict[str, Metric] = {
    "rouge_l": Metric("ROUGE-L recall of greedy answers against the references", "0–1", "as retrained"),
    "probability": Metric("exp(−mean token NLL) of the reference answer", "0–1", "as retrained"),
    "truth_ratio": Metric(
        "wrong over right answers: forget mean min(R, 1/R), else mean max(0, 1−R)",
        "0–1",
        "as retrained",
    ),
    "attribution": Metric(
        "forget answers: probability mass on the forget owners, by the run's classifier",
        "0–1",
        "as retrained",
    ),
    "attribution_heldout": Metric(
        "the same by a lexical attributor that no reward used",
        "0–1",
        "as retrained",
    ),
    "reattribution": Metric(
        "share of forget answers attributed with confidence to an owner not asked about",
        "0–1",
        "as retrained",
    ),
    "reattribution_heldout": Metric("the same by the held-out attributor", "0–1", "as retrained"),
    "empty": Metric("share of answers without a word", "0–1", "lower"),
    "unfinished": Metric("share of answers without end-of-text", "0–1", "lower"),
    "repetitive": Metric(
        "share of answers with a 4-gram three times, or a word three times in a row",
        "0–1",
        "lower",
    ),
    "distinct_2": Metric("different word pairs over all word pairs of the answers", "0–1", "as retrained"),
    "mean_length": Metric("words in an answer", "≥ 0", "as retrained"),
    "tug_of_war": Metric(
        "Π over forget, retain, test of 1 − |ROUGE-L − retrained's|; blind to broken text",
        "0–1",
        "higher",
    ),
    "tug_of_war_without_test": Metric("the same over forget and retain", "0–1", "higher"),
    "retrain_similarity": Metric(
        "Tug-of-War times closeness of held-out attribution, repetitive and empty share",
        "0–1",
        "higher",
    ),
    "forget_quality": Metric(
        "p of a Kolmogorov–Smirnov test of truth ratios against the retrained model",
        "0–1",
        "higher",
    ),
}


def extra_metrics() -> dict[str, Any]:
    """Entry points of other packages by name; `.load()` gives an `ExtraMetric`."""
    return {point.name: point for point in entry_points(group=GROUP)}


def compute_extra(records: Records) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures by metric name, and "extra.name" → reason for those that failed; none ends an evaluation."""
    figures: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, point in extra_metrics().items():
        try:
            metric: ExtraMetric = point.load()
            figures[name] = metric([dict(record) for record in records])
        except Exception as error:  # whatever foreign code raises is said in the results
            figures[name] = None
            missing[f"extra.{name}"] = f"{type(error).__name__}: {error}"
    return figures, missing
