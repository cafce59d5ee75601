"""`dareu rescore`: every metric that per-sample records allow, without a model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.errors import ConfigError, DataError, RunError
from dareu.evaluation.beside import compare_models, holdout_of
from dareu.evaluation.knowledge import matched
from dareu.evaluation.metrics.base import INPUTS
from dareu.evaluation.metrics.compute import compute_metrics
from dareu.evaluation.metrics.registry import LATE, metrics_of
from dareu.evaluation.metrics.rouge import LATIN, PUBLISHED, tokenisers
from dareu.evaluation.rescore import open_unlearning, tofu
from dareu.evaluation.rescore.log import Log, check_ranges, read_own
from dareu.evaluation.rescore.remarks import remarks
from dareu.evaluation.results import SCHEMA_VERSION

TRUTH_RATIOS = ("geometric", "arithmetic", "open-unlearning")
# Relative; what differs by more follows another definition, or was computed from other numbers.
TOLERANCE = 1e-4
NOTES = {
    "forget_quality": "needs the log of the retrained model (--retrained)",
    "privleak": "open-unlearning takes it against an AUC of .5 where there is no retrained model's log",
}


def read_log(path: str | Path, model: str = "unlearned") -> Log:
    """A log in any of the three layouts; of a run folder the records of `model`.

    Raises:
        RunError: for a file that cannot be read.
        DataError: for one that is laid out otherwise, or holds no samples.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(
            f"There is no file and no folder {path}.",
            "Give a run folder, or a log as an evaluation wrote it.",
        )
    if path.is_dir() or path.suffix == ".jsonl":
        log = read_own(path, model)
    else:
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path} cannot be read: {error}.", "Give a log as an evaluation wrote it."
            ) from None
        if open_unlearning.is_log(tree):
            log = open_unlearning.read(path, tree)
        elif tofu.is_log(tree):
            log = tofu.read(path, tree)
        else:
            raise DataError(
                f"{path} has none of the layouts that dareu reads.",
                "Give a run folder or samples/<model>.jsonl, a TOFU_EVAL.json of open-unlearning, or TOFU's lists of "
                "rows (forget, retain, real_authors, world_facts).",
            )
    if not log.records:
        raise DataError(
            f"{path} holds no samples.", "Give the log with its values by sample, not its summary."
        )
    check_ranges(log)
    return log


def rescore(
    log: str | Path,
    retrained: str | Path | Sequence[str | Path] | None = None,
    original: str | Path | None = None,
    truth_ratio: str | None = None,
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Metrics of a log, and those that relate it to the logs of the retrained and the original model.

    Args:
        log: a run folder, `samples/<model>.jsonl`, a `TOFU_EVAL.json`, or a log in TOFU's layout. Of a run folder the
            retrained and the original model's records are read as well, unless others are given.
        retrained: the retrained model's log; of several, of other seeds, the first is compared with, and all of them
            say which differences are chance.
        truth_ratio: the definition to compute by; None: the log's own.

    Returns:
        What `results.json` holds, as far as records allow, and `layout`, `n`, `parity` (figure that the log names →
        `logged`, `computed`, `same` to 1e-4 relative, `note`), `unread` (sections that were not understood), `remarks`
        (sentences on logs that can hardly be what they are given for); and the records by model.

    Raises:
        RunError, DataError: for a log that cannot be read, or logs of different samples; both are named.
        ConfigError: for an unknown definition.
    """
    if truth_ratio is not None and truth_ratio not in TRUTH_RATIOS:
        raise ConfigError(
            f"There is no truth ratio '{truth_ratio}'.", f"Give one of {', '.join(TRUTH_RATIOS)}."
        )
    logs = {"unlearned": read_log(log)}
    if retrained is None or isinstance(retrained, str | Path):
        first, others = retrained, []
    else:
        first, *others = retrained
    seeds = {f"retrained {i}": read_log(one, "retrained") for i, one in enumerate(others, start=2)}
    folder = Path(log) if Path(log).is_dir() else None
    for model, path in (("retrained", first), ("original", original)):
        if path is not None:
            logs[model] = read_log(path, model)
        elif folder is not None and (folder / "samples" / f"{model}.jsonl").is_file():
            logs[model] = read_log(folder, model)
    _check(logs | seeds)
    for foreign in (one for one in (logs | seeds).values() if one.layout != "dareu"):
        for record in foreign.records:
            record[PUBLISHED] = True
    ours = logs["unlearned"]
    if first is not None:
        _check_retrained(ours, logs["retrained"])
    definition = truth_ratio or ours.truth_ratio
    absent = {name: INPUTS[name] for name in ("model",)}
    metrics = [
        m for m in metrics_of("full") if not any(need in LATE for need in m.needs) or _logged(m.name, logs)
    ]
    records = {model: one.records for model, one in logs.items()}
    summaries = {}
    inputs: dict[str, Any] = {"truth_ratio_mean": definition}
    for model, rows in records.items():
        summaries[model] = compute_metrics(rows, metrics, inputs | {"holdout": holdout_of(rows)}, absent)
    comparison = compare_models(
        records, summaries, suite="full", inputs=inputs, seeds=[one.records for one in seeds.values()]
    )
    missing = {f"{name}.{k}": v for name, s in summaries.items() for k, v in s.pop("missing").items()}
    for summary in summaries.values():
        summary.pop("truth_ratios", None)
    missing |= comparison.pop("missing")
    results = {
        "schema_version": SCHEMA_VERSION,
        "log": str(log),
        "layout": ours.layout,
        "n": {of: len(ours.of(of)) for of in dict.fromkeys(r["set"] for r in ours.records)},
        "definitions": {
            "truth_ratio": definition,
            "words": tokenisers(r["reference"] for r in ours.records if r.get("reference"))
            if ours.layout == "dareu"
            else LATIN,
        },
        "models": summaries,
        **comparison,
        "parity": _parity(ours, summaries["unlearned"], comparison, definition),
        "unread": ours.unread,
        "remarks": remarks(records, summaries),
        "missing": missing,
    }
    return results, records


def _logged(name: str, logs: Mapping[str, Log]) -> bool:
    return any(r.get(name) is not None for log in logs.values() for r in log.records)


def _check(logs: Mapping[str, Log]) -> None:
    """Check that logs are of the same data.

    Raises:
        DataError: Two of them are not.
    """
    first, *others = logs.items()
    for name, other in others:
        keys = (first[1].data_key, other.data_key)
        if None not in keys and keys[0] != keys[1]:
            raise DataError(
                f"{first[1].path} and {other.path} were evaluated on different data: data_key {keys[0]} and {keys[1]}.",
                "Compare logs of the same data.",
            )
        for of in dict.fromkeys(r["set"] for r in first[1].records):
            if other.of(of):
                labels = {
                    f"{first[0]} ({first[1].path})": first[1].records,
                    f"{name} ({other.path})": other.records,
                }
                matched(of, labels)


def _check_retrained(ours: Log, retrained: Log) -> None:
    """Check that the records of a run, some of them relative to its retrained model, are not read beside another.

    Raises:
        DataError: The run had another retrained model; both content keys are named.
    """
    keys = (ours.retrained_key, retrained.retrained_key)
    if None not in keys and keys[0] != keys[1]:
        raise DataError(
            f"{ours.path} was evaluated beside the retrained model {keys[0]}, and {retrained.path} holds the records "
            f"of {keys[1]}.",
            "Leave --retrained out, for the run has its own; or give the run there and then the other, which counts as "
            "another seed.",
        )


def _parity(
    log: Log, summary: Mapping[str, Any], comparison: Mapping[str, Any], definition: str
) -> dict[str, dict[str, Any]]:
    """Each figure that the log names beside ours."""
    ours = open_unlearning.figures(log, summary, comparison) if log.layout == "open-unlearning" else {}
    table = {}
    for name, logged in log.logged.items():
        computed = ours.get(name)
        same = _close(computed, logged)
        note = "" if same else _why(log, name, logged, computed, definition)
        table[name] = {"logged": logged, "computed": computed, "same": same, "note": note}
    return table


def _close(ours: float | None, logged: float) -> bool:
    return ours is not None and abs(ours - logged) <= TOLERANCE * max(abs(logged), 1e-300)


def _why(log: Log, name: str, logged: float, computed: float | None, definition: str) -> str:
    """Why a figure of the log is not ours; empty where nothing is known."""
    if "ruth" in name and definition != log.truth_ratio:
        return f"another definition: truth_ratio={log.truth_ratio} gives theirs"
    if _close(open_unlearning.probability_of_right(log, name), logged):
        return "another definition: mean p(right) / (p(right) + p(wrong)), open-unlearning's aggregator prob_mean"
    if name in log.unread:
        return "dareu reads no such section"
    if computed is None and name not in NOTES:
        return "the log does not hold the samples behind it"
    return NOTES.get(name, "")
