"""The models of a run beside each other: what can only be computed once all of them have answered. Pure."""

import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from dareu.errors import DataError
from dareu.evaluation.comparison import NO_RETRAINED, compare
from dareu.evaluation.knowledge import damage, knowledge_left, matched, worst
from dareu.evaluation.metrics.base import Metric
from dareu.evaluation.metrics.compute import HOLDOUT, compute_metrics, interval_entry, sample_values
from dareu.evaluation.metrics.language import KnownWords, languages_of
from dareu.evaluation.metrics.registry import LATE, metrics_of
from dareu.evaluation.metrics.words import CharacterModel, broken_words, vocabulary

Records = list[dict[str, Any]]
NO_ORIGINAL = "there is no original model to compare with"


def compare_models(
    records: Mapping[str, Records],
    summaries: Mapping[str, dict[str, Any]],
    texts: Sequence[str] | None = None,
    *,
    suite: str = "fast",
    inputs: Mapping[str, Any] | None = None,
    seeds: Sequence[Records] = (),
    pretrained: bool | None = False,
    refusals: Sequence[str] = (),
) -> dict[str, Any]:
    """All that relates the unlearned model to the original and the retrained one.

    Adds to `records` and `summaries` the metrics that need the corpus or the other models' answers.

    Args:
        records, summaries: by model ("original", "retrained", "unlearned"; the first two may be absent).
        texts: every prompt and response of the corpus; None where it is not known.
        inputs: of metrics, as in `compute_metrics`.
        seeds: the records of retrained models of other seeds.
        pretrained: whether the models know more words than the corpus holds; a word of its language is not broken then.
            None: perhaps; where there is no list of words, the corpus alone tells which words exist.
        refusals: sentences that decline to answer; their words are not broken either.

    Returns:
        The comparisons (`dareu.evaluation.comparison.compare`), `knowledge_left`, `knowledge_left_worst`, `damage`,
        `missing`: path → reason; with `seeds` `retrained_seeds`: metric → `mean`, `sd` and `n` of its forget
        figures over the retrained models; without a retrained model `never_saw`, where there is a holdout.
    """
    _add_late(records, summaries, texts, suite, pretrained, refusals)
    metrics = metrics_of(suite)
    result = compare(summaries, suite)
    missing: dict[str, str] = result.pop("missing")
    left: dict[str, Any] = {}
    spread = seed_spread([records["retrained"], *seeds], metrics, inputs) if seeds else {}
    unseen: dict[str, Any] = {}
    if "retrained" not in records:
        unseen = never_saw(records.get("original", []), metrics, inputs)
        missing |= {"knowledge_left": NO_RETRAINED, "damage": NO_RETRAINED}
    elif "original" not in records:
        missing["knowledge_left"] = NO_ORIGINAL
    elif lacking := [
        name for name in ("original", "retrained", "unlearned") if not _has(records[name], "forget")
    ]:
        missing["knowledge_left"] = (
            f"the records of the {' and the '.join(lacking)} model hold no forget samples"
        )
    else:
        by_model = {name: {**(inputs or {}), "holdout": holdout_of(rows)} for name, rows in records.items()}
        left = knowledge_left(records, metrics, by_model, {name: one["sd"] for name, one in spread.items()})
    for name, entry in left.items():
        if entry.get("reason"):
            part = "" if entry["value"] is None else ".interval"
            missing[f"knowledge_left.{name}{part}"] = entry["reason"]
    lost: dict[str, Any] = {}
    if "retrained" in records:
        for of in dict.fromkeys(r["set"] for r in records["unlearned"]):
            if of in ("forget", "holdout") or not _has(records["retrained"], of):
                continue
            original = records.get("original")
            known = original if original is not None and _has(original, of) else None
            share = damage(records["retrained"], records["unlearned"], metrics, of, known)
            if share is not None:
                lost[of] = share
                if share["value"] is None:
                    missing[f"damage.{of}"] = share["reason"]
        for of in ("retain", "test"):
            if of not in lost:
                missing[f"damage.{of}"] = f"there are no answers to {of} questions"
    return result | {
        "knowledge_left": left,
        "knowledge_left_worst": worst(left),
        "damage": lost,
        "missing": missing,
        **({"retrained_seeds": spread} if seeds else {}),
        **({"never_saw": unseen} if unseen else {}),
    }


def never_saw(
    original: Records, metrics: Sequence[Metric], inputs: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """An estimate of a retrained model's forget figures: the original's own on the holdout, which it never saw either.

    Of metrics that need likelihoods alone, since no model is asked the holdout's questions.

    Returns:
        Metric → `value`, 95 % interval over samples (`low`, `high`) and `n`. Empty without a holdout.
    """
    rows = [{**record, "set": "forget"} for record in original if record["set"] == HOLDOUT]
    figures = {}
    for metric in metrics:
        if not (rows and metric.knowledge and metric.level == "sample" and metric.covers("forget")):
            continue
        known = [value for value in sample_values(metric, rows, inputs) or [] if value is not None]
        if known:
            figures[metric.name] = {"value": statistics.fmean(known), **interval_entry(known)}
    return figures


def seed_spread(
    models: Sequence[Records], metrics: Sequence[Metric], inputs: Mapping[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """Metric → `mean`, `sd` (n − 1) and `n` of its forget figures over retrained models of several seeds.

    Raises:
        DataError: where the records are of different samples.
    """
    numbered = {f"retrained {i}": rows for i, rows in enumerate(models, start=1)}
    forget = matched("forget", numbered)
    spread: dict[str, dict[str, float]] = {}
    for metric in metrics:
        if metric.level != "sample" or not metric.covers("forget"):
            continue
        figures = []
        for name, rows in forget.items():
            values = sample_values(metric, rows, {**(inputs or {}), "holdout": holdout_of(numbered[name])})
            known = [value for value in values or [] if value is not None]
            figures += [statistics.fmean(known)] if known else []
        if len(figures) == len(models) > 1:
            spread[metric.name] = {
                "mean": statistics.fmean(figures),
                "sd": statistics.stdev(figures),
                "n": len(figures),
            }
    return spread


def holdout_of(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]] | None:
    """The records that membership attacks compare with: of the set "holdout", else of "test"; None without them."""
    for of in ("holdout", "test"):
        rows = [r for r in records if r["set"] == of]
        if rows:
            return rows
    return None


def _has(records: Sequence[Mapping[str, Any]], of: str) -> bool:
    return any(record["set"] == of for record in records)


def _add_late(
    records: Mapping[str, Records],
    summaries: Mapping[str, dict[str, Any]],
    texts: Sequence[str] | None,
    suite: str,
    pretrained: bool | None,
    refusals: Sequence[str],
) -> None:
    late = [metric for metric in metrics_of(suite) if any(need in LATE for need in metric.needs)]
    if not late or texts is None:
        return
    corpus = _words(texts)
    said = _words(r.get("response") or "" for r in records.get("original", ()))
    inputs: dict[str, Any] = {"corpus_words": corpus, "character_model": CharacterModel(texts)}
    reasons = {}
    listed = pretrained is not False
    languages: tuple[str, ...] = ()
    try:
        languages = languages_of(texts) if listed else ()
    except DataError as error:
        listed = False
        if pretrained:
            reasons["known_words"] = error.cause
    for name, rows in records.items():
        # A model's own words prove nothing. The retrained model's are no other model's either: one like it would pass
        # where it fails itself.
        others = corpus | _words(refusals)
        if name != "original" or "retrained" not in records:
            others |= said
        known: Container[str] = KnownWords(others, languages) if listed else others
        if not reasons:
            inputs["known_words"] = known
        figures = compute_metrics(rows, late, inputs, reasons)
        for row in rows:
            if row.get("broken"):
                row["broken_words"] = broken_words(row.get("prompt") or "", row["response"], known)
        merge(summaries[name], figures, late)


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in vocabulary(text)}


def merge(summary: dict[str, Any], figures: Mapping[str, Any], metrics: Sequence[Any]) -> None:
    """Put the figures of `metrics` from a second summary of the same records into the first."""
    for metric in metrics:
        for of in [of for of in summary if of in figures and metric.covers(of)]:
            section, key = metric.path(of)
            name = f"{section}.{key}"
            if key not in (figures.get(section) or {}):
                continue
            summary.setdefault(section, {})[key] = figures[section][key]
            summary.setdefault("missing", {}).pop(name, None)
            if name in figures["missing"]:
                summary["missing"][name] = figures["missing"][name]
            if key in figures["intervals"].get(section, {}):
                summary.setdefault("intervals", {}).setdefault(section, {})[key] = figures["intervals"][
                    section
                ][key]
