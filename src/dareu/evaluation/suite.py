"""One checkpoint before the judge: a record for each sample, and a summary of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from dareu.attribution.base import Attributor, class_count, uniform
from dareu.attribution.score import forget_mass, owner_index, reattribution_share
from dareu.config import EvaluationConfig
from dareu.data.corpus import Sample, Split
from dareu.data.render import render_prompt
from dareu.evaluation.answer_likelihoods import Likelihood, likelihoods, response_limit
from dareu.evaluation.metrics.likelihood import forget_truth_ratio, other_truth_ratio
from dareu.evaluation.metrics.registry import compute_extra
from dareu.evaluation.metrics.rouge import rouge_l
from dareu.evaluation.metrics.text_health import text_health
from dareu.models.generate import Generation, generate

SETS = ("forget", "retain", "test")
# attributor → its re-attribution share
ATTRIBUTORS = {"attribution": "reattribution", "attribution_heldout": "reattribution_heldout"}
HEALTH = {"text_health": "forget", "text_health_retain": "retain"}
REASONS = {
    "rouge_l": "the reference has no Latin letter or digit, which is all that rouge-score reads",
    "probability": "the model's likelihood of the reference is not a finite number",
    "truth_ratio": "no wrong answers (that fit the model's context), or a likelihood that is not finite",
}
NOT_ASKED = dict.fromkeys(("probability", "truth_ratio"), "evaluation.likelihoods=false")
Row = tuple[str, int, Sample]
Record = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """A record per sample (forget, retain, test, each in the order of the split), and a summary.

    Record: `set`, `index` (in its set), `id`, `owner`, `prompt`, `reference`, `response`, `finished`,
    `rouge_l`, `probability`, `truth_ratio`, and, for forget samples, `attribution` and `attribution_heldout`
    (the mass on all forget owners); None where one does not apply or could not be computed.

    Summary: `forget`, `retain`, `test` (figures, and `n` samples), `text_health`, `text_health_retain`,
    `truth_ratios` (R of each forget sample that has one), `extra` (metrics of other packages), `missing`
    ("set.figure" → reason; also where some samples only lack it).
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
) -> Evaluation:
    """Greedy answers, likelihoods and attribution of one model on a split.

    `attributors`: "attribution" (the run's classifier) and "attribution_heldout"; either may be left out. The
    seed chooses the retain samples where `config.retain_limit` is set. `progress` labels the bars; None shows
    none. `DataError` for a forget owner that an attributor does not know, or a pair too long for the model.
    """
    for attributor in attributors.values():
        owner_index(attributor.owners, split.forget_owners)  # before the work, not after it
    model.to(device)
    rows = _rows(split, config.retain_limit, seed)
    samples = [sample for _, _, sample in rows]
    limit = response_limit(model, tokenizer, samples, split.task)
    answers = generate(
        model,
        tokenizer,
        [render_prompt(tokenizer, sample.prompt, split.task) for sample in samples],
        max_new_tokens=min(limit.room, config.max_new_tokens or limit.wanted),
        batch_size=config.batch_size,
        seed=seed,
        progress=progress and f"{progress}: answers",
    )
    scored = [Likelihood(None, None)] * len(samples)
    if config.likelihoods:
        scored = likelihoods(
            model,
            tokenizer,
            samples,
            split.task,
            batch_size=config.batch_size,
            progress=progress and f"{progress}: likelihoods",
        )
    records = [_record(*parts) for parts in zip(rows, answers, scored, strict=True)]
    summary, missing = _figures(records, REASONS if config.likelihoods else REASONS | NOT_ASKED)
    _attribute(records, summary, missing, split.forget_owners, attributors, config.reattribution_threshold)
    for name, of in HEALTH.items():
        summary[name] = _health([r for r in records if r["set"] == of])
        if of in missing:
            missing[name] = missing[of]
    summary["truth_ratios"] = [
        r["truth_ratio"] for r in records if r["set"] == "forget" and r["truth_ratio"] is not None
    ]
    summary["extra"], failed = compute_extra(records)
    return Evaluation(records, summary | {"missing": missing | failed})


def _rows(split: Split, retain_limit: int | None, seed: int) -> list[Row]:
    """(set, index, sample) in order; with a limit that many retain samples, drawn by the seed."""
    kept = range(len(split.retain))
    if retain_limit is not None and retain_limit < len(kept):
        kept = sorted(Random(f"{seed}/retain").sample(kept, retain_limit))  # type: ignore[assignment]
    rows: list[Row] = [("forget", i, sample) for i, sample in enumerate(split.forget)]
    rows += [("retain", i, split.retain[i]) for i in kept]
    return rows + [("test", i, sample) for i, sample in enumerate(split.test)]


def _record(row: Row, answer: Generation, scored: Likelihood) -> Record:
    name, index, sample = row
    rouge = rouge_l(sample.response, answer.text)
    return {
        "set": name,
        "index": index,
        "id": sample.id,
        "owner": sample.owner,
        "prompt": sample.prompt,
        "reference": sample.response,
        "response": answer.text,
        "finished": answer.finished,
        "rouge_l": None if rouge is None else rouge.recall,
        "probability": scored.probability,
        "truth_ratio": scored.truth_ratio,
        **{name: None for name in ATTRIBUTORS},
    }


def _figures(records: Sequence[Record], reasons: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """ROUGE-L recall, probability and truth ratio of each set, and why any is missing."""
    summary: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in SETS:
        chosen = [r for r in records if r["set"] == name]
        figures: dict[str, Any] = {"n": len(chosen)}
        if not chosen:
            missing[name] = f"the {name} set is empty"
        for key, reason in reasons.items():
            values = [r[key] for r in chosen if r[key] is not None]
            if len(values) < len(chosen):
                missing[f"{name}.{key}"] = f"{len(chosen) - len(values)} of {len(chosen)} samples: {reason}"
            if not values:
                figures[key] = None
            elif key == "truth_ratio":
                figures[key] = (forget_truth_ratio if name == "forget" else other_truth_ratio)(values)
            else:
                figures[key] = float(np.mean(values))
        summary[name] = figures
    return summary, missing


def _attribute(
    records: Sequence[Record],
    summary: dict[str, Any],
    missing: dict[str, str],
    forget_owners: Sequence[str],
    attributors: Mapping[str, Attributor],
    threshold: float,
) -> None:
    """Write the attribution of forget answers into their records and into `summary["forget"]`."""
    chosen = [r for r in records if r["set"] == "forget"]
    for name, share in ATTRIBUTORS.items():
        summary["forget"] |= {name: None, share: None}
        if name not in attributors:
            missing[f"forget.{name}"] = missing[f"forget.{share}"] = "no such attributor was given"
        elif chosen:
            owners = attributors[name].owners
            probs = _probabilities(attributors[name], [r["response"] for r in chosen])
            masses = forget_mass(probs, owners, forget_owners)
            for record, mass in zip(chosen, masses, strict=True):
                record[name] = float(mass)
            asked = [r["owner"] for r in chosen]
            summary["forget"][name] = float(masses.mean())
            summary["forget"][share] = reattribution_share(probs, owners, asked, threshold)


def _probabilities(attributor: Attributor, texts: Sequence[str]) -> np.ndarray:
    """(B, C); a blank response is no evidence and scores uniformly, whatever the attributor makes of it."""
    probs = uniform(len(texts), class_count(attributor))
    some = [i for i, text in enumerate(texts) if text.strip()]
    if some:
        probs[some] = attributor.probabilities([texts[i] for i in some])
    return probs


def _health(records: Sequence[Record]) -> dict[str, float | None]:
    if not records:
        return dict.fromkeys(("empty", "unfinished", "repetitive", "distinct_2", "mean_length"))
    return {**text_health([r["response"] for r in records], [r["finished"] for r in records])}
