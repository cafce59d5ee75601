"""Evaluates one checkpoint: a record for each sample, and a summary of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from dareu.attribution.base import Attributor, scores_of
from dareu.attribution.score import owner_index
from dareu.config import EvaluationConfig
from dareu.data.corpus import Sample, Split
from dareu.errors import DataError
from dareu.evaluation.answer_likelihoods import SCORES, Likelihood, likelihoods
from dareu.evaluation.asked_once import Known
from dareu.evaluation.beside import holdout_of
from dareu.evaluation.harness import harness_figures
from dareu.evaluation.metrics.attribution import Attributions
from dareu.evaluation.metrics.compute import HOLDOUT, compute_metrics
from dareu.evaluation.metrics.registry import LATE, metrics_of
from dareu.evaluation.model_metrics.fields import (
    DEFAULT_LEARNING_RATE,
    EvaluationInputs,
    Peer,
    fill_fields,
    keep_field,
)
from dareu.evaluation.subject import Subject
from dareu.models.generate import Generation
from dareu.runs.files import read_jsonl, write_jsonl
from dareu.runs.ranks import is_main, on_main

ATTRIBUTORS = ("attribution", "attribution_heldout")
RECORDS = "records.jsonl"  # answers and likelihoods of an evaluation that is not finished
NO_LIKELIHOODS = "evaluation.likelihoods=false"
Row = tuple[str, int, Sample]
Record = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """A record per sample (forget, retain, test, each in the order of the split), and a summary.

    Record: `set`, `index` (in its set), `id`, `owner`, `prompt`, `reference`, `response`, `finished`; what metrics are
    computed from (`nll`, `paraphrased_nll`, `wrong_nlls`: mean NLLs, nats a token, end-of-text included; `hits`: "1"
    for each token of the reference that is the likeliest one, "0" for the others; `mia_…`: membership scores); and a
    field for each sample metric of the registry (`rouge_l`, `probability`, …). None where one does not apply or could
    not be computed.

    Summary: see `dareu.evaluation.metrics.compute`.
    """

    records: list[Record]
    summary: dict[str, Any]


def evaluate_model(
    model: Any,
    tokenizer: Any,
    split: Split,
    attributors: Mapping[str, Attributor],
    config: EvaluationConfig,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: str | None = None,
    peers: Mapping[str, Peer] | None = None,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    work: Path | None = None,
) -> Evaluation:
    """Every metric of the suite `config.suite` of one model on a split.

    Args:
        attributors: "attribution" (the run's classifier) and "attribution_heldout"; either may be left out.
        seed: of samples and probes, and of the retain samples that are drawn where `config.retain_limit` is set.
        progress: labels the bars; None shows none.
        peers: load the "original" and the "retrained" model, which some metrics compare with.
        learning_rate: of the probes that train again, unless `config.relearn_lr` is set.
        work: a folder of this evaluation alone, which keeps what is measured; an interrupted one goes on from there.

    Raises:
        DataError: for a forget owner that an attributor does not know, or a pair too long for the model.
    """
    for attributor in attributors.values():
        owner_index(attributor.owners, split.forget_owners)  # before the work, not after it
    model.to(device)
    subject = Subject(model, tokenizer, split.task, config.batch_size, progress)
    rows = evaluated_rows(split, config.retain_limit, seed)
    samples = [sample for _, _, sample in rows]
    reasons = {} if config.likelihoods else dict.fromkeys(("nll", "wrong_nlls", *SCORES), NO_LIKELIHOODS)
    kept, known = work and work / RECORDS, Known()
    if kept and on_main(kept.is_file):
        records: list[Record] = read_jsonl(kept)
    else:
        records = _answered(known.of(subject), rows, config)
        if kept and is_main():
            write_jsonl(kept, records)
    inputs: dict[str, Any] = {"truth_ratio_mean": config.truth_ratio}
    for name in ATTRIBUTORS:
        if name in attributors:
            inputs[name] = _attributions(
                attributors[name], split.forget_owners, config.reattribution_threshold
            )
    metrics = [
        metric for metric in metrics_of(config.suite) if not any(need in LATE for need in metric.needs)
    ]
    rate = config.relearn_lr or learning_rate
    measured = EvaluationInputs(
        subject, split, records, samples, config, peers or {}, seed, rate, work, known
    )
    filled = fill_fields(measured, {need for metric in metrics for need in metric.needs})
    inputs |= {"holdout": holdout_of(records), "curves": filled.curves or None}
    # On texts and numbers alone: one process does it, and writes them.
    summary = on_main(lambda: compute_metrics(records, metrics, inputs, reasons | filled.missing))
    if config.lm_eval:
        tasks = config.lm_eval
        try:
            summary["lm_eval"] = on_main(
                lambda: harness_figures(model, tokenizer, tasks, batch_size=config.batch_size, seed=seed)
            )
        except DataError as error:  # hours of other figures are not lost for it
            summary["lm_eval"] = None
            summary["missing"]["lm_eval"] = str(error)
    return Evaluation(records, summary)


def evaluated_rows(split: Split, retain_limit: int | None, seed: int) -> list[Row]:
    """(set, index, sample) in order; with a limit that many retain samples, drawn by the seed."""
    kept = range(len(split.retain))
    if retain_limit is not None and retain_limit < len(kept):
        kept = sorted(Random(f"{seed}/retain").sample(kept, retain_limit))  # type: ignore[assignment]
    rows: list[Row] = [("forget", i, sample) for i, sample in enumerate(split.forget)]
    rows += [("retain", i, split.retain[i]) for i in kept]
    rows += [("test", i, sample) for i, sample in enumerate(split.test)]
    return rows + [(HOLDOUT, i, sample) for i, sample in enumerate(split.holdout)]


def _answered(subject: Subject, rows: Sequence[Row], config: EvaluationConfig) -> list[Record]:
    """A record for each sample, with its greedy answer and its likelihoods."""
    samples = [sample for _, _, sample in rows]
    limit = subject.limit(samples)
    asked = [sample.prompt for of, _, sample in rows if of != HOLDOUT]
    answers: list[Generation | None] = [None] * len(samples)  # attacks read the holdout's likelihoods alone
    most = min(limit.room, config.max_new_tokens or limit.wanted)
    answers[: len(asked)] = subject.answers(subject.rendered(asked), most)
    scored: Sequence[Likelihood | None] = [None] * len(samples)
    if config.likelihoods:
        scored = likelihoods(subject, samples)
    return [_record(*parts) for parts in zip(rows, answers, scored, strict=True)]


def _record(row: Row, answer: Generation | None, scored: Likelihood | None) -> Record:
    name, index, sample = row
    return {
        "set": name,
        "index": index,
        "id": sample.id,
        "owner": sample.owner,
        "prompt": sample.prompt,
        "reference": sample.response,
        **({"kind": sample.kind} if sample.kind != "open" else {}),
        **({"subset": sample.subset} if sample.subset else {}),
        "response": answer and answer.text,
        "finished": answer and answer.finished,
        "nll": scored and scored.nll,
        "paraphrased_nll": scored and scored.paraphrased_nll,
        "wrong_nlls": scored and scored.wrong_nlls,
        **(scored.scores if scored else dict.fromkeys(SCORES)),
    }


def take_over(records: Sequence[Mapping[str, Any]], work: Path) -> None:
    """Write what a model answered in a finished evaluation into the folder of one that is to begin.

    Greedy answers, likelihoods and sampled answers, from which metrics are computed; what needs a model's training
    (probes) is measured again. Does nothing where the work has begun.
    """
    if (work / RECORDS).is_file():
        return
    measured = _record(("", 0, Sample("", None, "", "", kind="short", subset="any")), None, None)
    write_jsonl(work / RECORDS, [{k: v for k, v in record.items() if k in measured} for record in records])
    if any("sampled" in record for record in records):
        keep_field(work, "sampled", [record.get("sampled") for record in records])


def _attributions(attributor: Attributor, forget_owners: Sequence[str], threshold: float) -> Attributions:
    """The attributor as metrics read it; texts that were read once are not read again."""
    read: dict[tuple[str, ...], np.ndarray] = {}

    def probabilities(texts: Sequence[str]) -> np.ndarray:
        key = tuple(texts)
        if key not in read:
            read[key] = scores_of(attributor, texts)
        return read[key]

    return Attributions(probabilities, attributor.owners, forget_owners, threshold)
