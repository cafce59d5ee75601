"""What is left and what was lost: the unlearned model between the original and the retrained one. Pure.

o original, r retrained, u unlearned. Records are those of `dareu.evaluation.suite`; samples are matched by set and
index.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dareu.errors import DataError
from dareu.evaluation.metrics.base import Metric, Records
from dareu.evaluation.metrics.compute import Inputs, holdout_values, interval_entry, sample_values
from dareu.evaluation.metrics.intervals import (
    CONSTANT,
    auc_draws,
    is_wide,
    mean_draws,
    paired_difference,
    percentiles,
    too_few,
)
from dareu.evaluation.metrics.rouge import exact_answer

NONE_RIGHT = "the retrained model has none of these answers right word for word, so that none can be lost"
# |o − r| must be more than so many standard deviations between retrained models of different seeds.
SEED_SDS = 3


def matched(of: str, models: Mapping[str, Records]) -> dict[str, list[Mapping[str, Any]]]:
    """The records of one set of samples, model by model, in the same order.

    Raises:
        DataError: where two models were evaluated on different samples; both are named.
    """
    by: dict[str, dict[Any, Mapping[str, Any]]] = {
        name: {r["index"]: r for r in records if r["set"] == of} for name, records in models.items()
    }
    first, *others = by
    for name in others:
        for one, other in ((first, name), (name, first)):
            lacking = [index for index in by[one] if index not in by[other]]
            if lacking:
                raise DataError(
                    f"The records of the {one} and the {other} model are of different samples: {of} sample "
                    f"{lacking[0]} is only in those of the {one} model ({len(by[one])} and {len(by[other])} "
                    "samples).",
                    "Compare logs of the same data.",
                )
        for index, record in by[first].items():
            theirs = by[name][index]
            # A prompt may differ by its chat template; what it asks for may not.
            both = [
                f for f in ("reference", "prompt") if record.get(f) is not None and theirs.get(f) is not None
            ]
            for field in both[:1]:
                ours, other_text = record[field], theirs[field]
                if _plain(ours) != _plain(other_text):
                    raise DataError(
                        f"The records of the {first} and the {name} model are of different samples: the {field} of "
                        f"{of} sample {index} is {ours!r} in one and {other_text!r} in the other.",
                        "Compare logs of the same data.",
                    )
    order = list(by[first])
    return {name: [rows[index] for index in order] for name, rows in by.items()}


def _plain(text: str) -> str:
    return " ".join(str(text).split())


def knowledge_left(
    models: Mapping[str, Records],
    metrics: Sequence[Metric],
    inputs: Mapping[str, Inputs] | None = None,
    seed_sd: Mapping[str, float] | None = None,
) -> dict[str, dict[str, Any]]:
    """k = (u − r)/(o − r) of each metric on the forget set, with a 95 % interval over samples.

    1: as the original model, 0: as the retrained one, below 0: further from the original than the retrained model is.

    Args:
        models: the records of "original", "retrained" and "unlearned".
        inputs: model → inputs of its metrics that are no field of the records.
        seed_sd: metric → standard deviation between retrained models of different seeds, where it is known. It widens
            the interval: another seed would have given another r.

    Returns:
        Metric → `value`, `low`, `high`, `n` samples, and the means `original`, `retrained`, `unlearned`. A metric that
        cannot tell the original from the retrained model has None for the first three, and `reason`: |o − r| within
        three standard deviations between seeds or, where those are not known, a bootstrap interval of o − r over 0.
        With too few samples, or the same value in all, `low` and `high` are None, with `reason`.
        Metrics that the records do not allow are absent.

    Raises:
        DataError: where the records are of different samples.
    """
    rows = matched("forget", {name: models[name] for name in ("original", "retrained", "unlearned")})
    left: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        if not (metric.knowledge and metric.level == "sample" and metric.covers("forget")):
            continue
        values = [sample_values(metric, rows[name], (inputs or {}).get(name)) for name in rows]
        complete = [row for row in zip(*(v or [] for v in values), strict=False) if None not in row]
        if None in values or not complete:
            continue
        others = [holdout_values(metric, rows[name], (inputs or {}).get(name)) for name in rows]
        left[metric.name] = _left(
            np.array(complete, dtype=float).T,
            (seed_sd or {}).get(metric.name),
            [np.array(one, dtype=float) for one in others if one is not None],
        )
    return left


def _left(values: np.ndarray, seed_sd: float | None, others: Sequence[np.ndarray] = ()) -> dict[str, Any]:
    """From (3, n): contributions of the samples in the original, the retrained and the unlearned model.

    Args:
        others: the same of held-out samples, for areas under a ROC curve; empty for other metrics.
    """
    o, r, u = (float(x) for x in values.mean(axis=1))
    if len(others) == len(values):
        rows = [auc_draws(row, other, i) for i, (row, other) in enumerate(zip(values, others, strict=True))]
    else:
        rows = [mean_draws(row, i) for i, row in enumerate(values)]
    o_draws, r_draws, u_draws = rows
    if seed_sd:
        r_draws = r_draws + np.random.default_rng(0).normal(0.0, seed_sd, len(r_draws))
    entry = {"value": None, "low": None, "high": None, "n": values.shape[1]}
    entry |= {"original": o, "retrained": r, "unlearned": u}
    gap_low, gap_high = percentiles(o_draws - r_draws)
    if o == r:
        return entry | {"reason": "the original and the retrained model do not differ"}
    if seed_sd is not None and abs(o - r) <= SEED_SDS * seed_sd:
        return entry | {
            "reason": f"|original − retrained| = {abs(o - r):.3f} is within {SEED_SDS} standard deviations "
            f"({seed_sd:.3f}) between retrained models of different seeds"
        }
    if seed_sd is None and gap_low <= 0 <= gap_high:
        return entry | {
            "reason": "the interval of original − retrained covers 0: "
            f"{o - r:.3f} ({gap_low:.3f} to {gap_high:.3f}, n = {values.shape[1]})"
        }
    entry["value"] = (u - r) / (o - r)
    if few := too_few(values.shape[1], min(map(len, others), default=None)):
        return entry | {"reason": few}
    if all(np.ptp(draws) < 1e-12 for draws in (o_draws, r_draws, u_draws)):
        return entry | {"reason": CONSTANT}
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (u_draws - r_draws) / (o_draws - r_draws)
    low, high = percentiles(draws[np.isfinite(draws)])
    return entry | {"low": low, "high": high}


def worst(left: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """`{metric, value}` with the largest |k|; None where no metric can tell.

    A metric whose interval `is_wide` tells hardly more than one that cannot tell the two apart: it counts only where no
    other does.
    """
    told = {name: entry for name, entry in left.items() if entry.get("value") is not None}
    sure = {name: entry for name, entry in told.items() if not is_wide(entry.get("low"), entry.get("high"))}
    known = {name: entry["value"] for name, entry in (sure or told).items()}
    if not known:
        return None
    name = max(known, key=lambda n: abs(known[n]))
    return {"metric": name, "value": known[name]}


def damage(
    retrained: Records,
    unlearned: Records,
    metrics: Sequence[Metric],
    of: str,
    original: Records | None = None,
) -> dict[str, Any] | None:
    """What was lost on the set `of`, beside the retrained model.

    The original, too, has answers wrong that the retrained model has right: another training gives other mistakes. Its
    own share stands beside the unlearned model's, and the difference of both is what unlearning lost.

    Args:
        original: the original model's records, where there are some.

    Returns:
        `value`: the share of samples that the retrained model answers word for word and the unlearned one does not,
        with its 95 % interval (`low`, `high`) and `n`; `right_retrained`, `right_unlearned`: shares of such answers;
        `metrics`: r − u of each metric, positive where something was lost. With an original that answered the set
        `right_original`, `original`: its own `value`, `low` and `high`, and `beyond_original`: the unlearned model's
        share less the original's, with the interval of paired shares. None where the set has no answers. Where the
        retrained model has no answer right, none can be lost: the shares are None, and `reason` says so.
    """
    rows = matched(of, {"retrained": retrained, "unlearned": unlearned})
    right = _right(rows)
    if right is None:
        return None
    lost = (right[0] & ~right[1]).astype(float)
    gaps: dict[str, float] = {}
    beside: dict[str, Any] = {}
    own = None if original is None else _right(matched(of, {"retrained": retrained, "original": original}))
    none_right = not right[0].any()
    share: dict[str, Any] = {"value": float(lost.mean()), **interval_entry(lost)}
    if none_right:
        share |= {"value": None, "low": None, "high": None, "reason": NONE_RIGHT}
    if own is not None:
        missed = (own[0] & ~own[1]).astype(float)
        beside = {"right_original": float(own[1].mean())}
        if not none_right:
            beside["original"] = {"value": float(missed.mean()), **interval_entry(missed)}
            beside["beyond_original"] = _beyond(lost, missed)
    for metric in metrics:
        if metric.knowledge and metric.covers(of) and metric.level == "sample":
            theirs, ours = (sample_values(metric, side) for side in rows.values())
            both = [
                (t, o)
                for t, o in zip(theirs or [], ours or [], strict=False)
                if t is not None and o is not None
            ]
            if both:
                gaps[metric.name] = float(np.mean([t - o for t, o in both]))
    return {
        **share,
        "right_retrained": float(right[0].mean()),
        "right_unlearned": float(right[1].mean()),
        **beside,
        "metrics": gaps,
    }


def _beyond(lost: np.ndarray, missed: np.ndarray) -> dict[str, Any]:
    """Mean of `lost − missed`, both (n,) of 0 and 1, with the interval of a difference of paired shares."""
    here, there, n = int((lost > missed).sum()), int((lost < missed).sum()), len(lost)
    entry = {"value": (here - there) / n, "n": n}
    if few := too_few(n):
        return entry | {"low": None, "high": None, "reason": few}
    low, high = paired_difference(here, there, n)
    return entry | {"low": low, "high": high}


def _right(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> np.ndarray | None:
    """(2, n): which of two models' answers are word for word right; None where the first or the second has none."""
    pairs = [pair for pair in zip(*rows.values(), strict=True) if pair[0].get("response") is not None]
    if not pairs or any(second.get("response") is None for _, second in pairs):
        return None
    right = [[exact_answer(row["reference"], row["response"]) for row in pair] for pair in pairs]
    return np.array(right, dtype=bool).T
