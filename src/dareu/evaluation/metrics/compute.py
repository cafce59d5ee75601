"""The registry at work: records and inputs of one model in, a summary out. Pure; no torch.

The summary has a section a set of samples (`forget`, `retain`, …) and those that metrics name (`text_health`, …),
`truth_ratios`, `intervals` (section → key → `{low, high, n}`) and `missing` ("section.key" → reason).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dareu.errors import DataError
from dareu.evaluation.metrics.base import INPUTS, SETS, Metric, Values, number
from dareu.evaluation.metrics.intervals import mean_interval
from dareu.evaluation.metrics.registry import compute_extra

Inputs = Mapping[str, Any]
HOW = {"test": " (data.test_path or data.test_split names one)"}  # how a set comes to have samples
HOLDOUT = "holdout"  # a set that membership attacks compare with; no figures of its own


def compute_metrics(
    records: list[dict[str, Any]],
    metrics: Sequence[Metric],
    inputs: Inputs | None = None,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Every metric of `metrics` on the records of one model.

    Writes the values of sample metrics into `records`, each under the metric's name.

    Args:
        inputs: what metrics need that is no field of the records, by the names in `INPUTS`.
        reasons: need → why it is absent, where more is known than the registry says.
    """
    inputs, reasons = inputs or {}, dict(INPUTS) | dict(reasons or {})
    summary: dict[str, Any] = {}
    missing: dict[str, str] = {}
    intervals: dict[str, dict[str, Any]] = {}
    for of in dict.fromkeys([*SETS, *(r["set"] for r in records)]):
        rows = [r for r in records if r["set"] == of]
        summary[of] = {"n": len(rows)}
        if not rows:
            missing[of] = f"the {of} set is empty{HOW.get(of, '')}"
        for metric in metrics:
            if metric.level not in ("sample", "set") or not metric.covers(of) or of == HOLDOUT:
                continue
            section, key = metric.path(of)
            name = f"{section}.{key}"
            figures = summary.setdefault(section, {})
            figures.setdefault(key, None)
            if not rows:
                missing.setdefault(section, f"the {of} set is empty{HOW.get(of, '')}")
                continue
            lack = lacking(metric, rows, inputs, reasons)
            logged = metric.level == "sample" and any(row.get(metric.name) is not None for row in rows)
            if lack is not None and not logged:
                missing[name] = lack
                continue
            try:
                if metric.level == "sample":
                    computed = _values(metric, rows, inputs)
                else:
                    read = [row for row in rows if metric.reads(row)]
                    figures[key] = metric.compute(read, **(metric.given(inputs) or {}))
            except (DataError, ValueError) as error:
                missing[name] = getattr(error, "cause", None) or str(error)
                continue
            if metric.level == "set":
                continue
            if metric.keep:
                for row, value in zip(rows, computed, strict=True):
                    row[metric.name] = value
            parts = [v for v in metric.contributions(computed, of) if v is not None and math.isfinite(v)]
            if len(parts) < len(rows):
                missing[name] = f"{len(rows) - len(parts)} of {len(rows)} samples: {metric.gap}"
            if parts:
                figures[key] = float(np.mean(parts))
                others = holdout_values(metric, rows, inputs)
                intervals.setdefault(section, {})[key] = interval_entry(parts, others)
    for metric in metrics:
        for name in metric.needs if metric.keep and metric.level == "sample" else ():
            if name in inputs:  # absent from the records of sets that it does not cover
                for row in records:
                    row.setdefault(metric.name, None)
    ratios = [r.get("truth_ratio") for r in records if r["set"] == "forget"]
    summary["truth_ratios"] = [ratio for ratio in ratios if ratio is not None]
    summary["intervals"] = intervals
    summary["extra"], failed = compute_extra(records)
    summary["missing"] = missing | failed
    for metric in metrics:
        if metric.level == "model":
            try:
                summary[metric.key] = metric.compute(summary)
            except (DataError, ValueError) as error:
                summary[metric.key] = None
                summary["missing"][metric.key] = getattr(error, "cause", None) or str(error)
    return summary


def sample_values(
    metric: Metric, records: Sequence[Mapping[str, Any]], inputs: Inputs | None = None
) -> Values | None:
    """What each record, all of one set, adds to the metric's mean; None where the metric lacks what it needs."""
    inputs = inputs or {}
    if not records:
        return None
    if metric.keep and any(r.get(metric.name) is not None for r in records):
        values: Values = [_figure(r.get(metric.name)) for r in records]
    elif lacking(metric, records, inputs, INPUTS) is not None:
        return None
    else:
        values = _values(metric, records, inputs)
    return metric.contributions(values, records[0]["set"])


def _figure(value: Any) -> Any:
    """What a record holds, if it is a finite number, or true or false."""
    return value if isinstance(value, bool) else number(value)


def holdout_values(
    metric: Metric, records: Sequence[Mapping[str, Any]], inputs: Inputs | None
) -> list[float] | None:
    """What the held-out samples add to an area under a ROC curve; None for other metrics, and where there are none."""
    given = metric.given(inputs or {})
    if metric.others is None or given is None:
        return None
    values = metric.others(records, **given)
    return [value for value in values if value is not None] or None


def interval_entry(values: Sequence[float], others: Sequence[float] | None = None) -> dict[str, Any]:
    """`low`, `high` and `n`; with `reason` and None for both ends where there is no interval."""
    ends = mean_interval(values, others)
    if isinstance(ends, str):
        return {"low": None, "high": None, "n": len(values), "reason": ends}
    return {"low": ends[0], "high": ends[1], "n": len(values)}


def lacking(
    metric: Metric, rows: Sequence[Mapping[str, Any]], inputs: Inputs, reasons: Mapping[str, str]
) -> str | None:
    """Why the metric cannot be computed on these records; None where it can."""
    for need in metric.needs:
        if need in INPUTS:
            if inputs.get(need) is None:
                return reasons[need]
        elif all(row.get(need) is None for row in rows):
            if need not in reasons and not any(need in row for row in rows):
                return f"the records do not hold `{need}`"
            return reasons.get(need) or f"{len(rows)} of {len(rows)} samples: {metric.gap}"
    return None


def _values(metric: Metric, rows: Sequence[Mapping[str, Any]], inputs: Inputs) -> Values:
    """The metric's value of each row. A row that lacks what it needs keeps the value that a log has, if any."""
    given = metric.given(inputs)
    complete = [] if given is None else [i for i, row in enumerate(rows) if metric.reads(row)]
    values: Values = [row.get(metric.name) if metric.keep else None for row in rows]
    if complete:
        computed = metric.compute([rows[i] for i in complete], **(given or {}))
        for i, value in zip(complete, computed, strict=True):
            values[i] = value
    return values
