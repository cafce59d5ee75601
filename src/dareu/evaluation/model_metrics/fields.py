"""Fields of the records that only a model can fill: each group is computed where a metric of the suite reads one.

The metrics themselves are rows of `dareu.evaluation.metrics.registry` that read these fields. A new group is one
function and one row of `PRODUCERS`.
"""

import ctypes
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from dareu.config import EvaluationConfig
from dareu.data.corpus import Sample, Split
from dareu.errors import DareuError, DataError
from dareu.evaluation.asked_once import Known
from dareu.evaluation.metrics.base import INPUTS
from dareu.evaluation.model_metrics import continuation, fade, layerwise
from dareu.evaluation.model_metrics.gradient_norm import gradient_norms
from dareu.evaluation.probes.base import ProbeInput
from dareu.evaluation.probes.registry import PROBES, field_of, run_probe
from dareu.evaluation.subject import Subject
from dareu.runs import ranks
from dareu.runs.files import read_json, write_json

Peer = Callable[[], tuple[Any, Any]]  # loads another checkpoint: (model, tokenizer)
SHOWN = 3  # questions and answers before a few-shot question
DEFAULT_LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class EvaluationInputs:
    """What producers read. `records` are filled in place; `samples` are theirs, in the same order.

    In `work`, where it is given, a file keeps what each producer found, for an evaluation that is interrupted.
    `known`: what `subject` answered before in this evaluation; None where nothing is kept.
    """

    subject: Subject
    split: Split
    records: Sequence[dict[str, Any]]
    samples: Sequence[Sample]
    config: EvaluationConfig
    peers: Mapping[str, Peer]
    seed: int
    learning_rate: float
    work: Path | None = None
    known: Known | None = None

    def of(self, *sets: str) -> list[tuple[dict[str, Any], Sample]]:
        """Records and samples of some sets, in order."""
        return [(r, s) for r, s in zip(self.records, self.samples, strict=True) if r["set"] in sets]

    def peer(self, name: str) -> Subject:
        """Another model of the run, loaded.

        Raises:
            DataError: There is none, or its tokens are others.
        """
        if name not in self.peers:
            raise DataError(f"{INPUTS[name]}.")
        model, tokenizer = self.peers[name]()
        if tokenizer.get_vocab() != self.subject.tokenizer.get_vocab():
            raise DataError(
                f"The {name} model has another vocabulary, so its tokens cannot be compared.",
                "Give a model that was fine-tuned from the same base.",
            )
        return replace(self.subject, model=model.to(self.subject.model.device), tokenizer=tokenizer)

    @property
    def asked(self) -> Subject:
        """`subject`, of which nothing is computed twice."""
        return self.subject if self.known is None else self.known.of(self.subject)

    @cached_property
    def forget(self) -> list[Sample]:
        return [s for _, s in self.of("forget")]


Curves = dict[str, list[tuple[float, float]]]  # name → points, of probes
Producer = Callable[[EvaluationInputs], Curves | None]  # `DareuError`: why it fills nothing


class Filled(NamedTuple):
    """`missing`: field → why it could not be filled, and what to do."""

    missing: dict[str, str] = {}
    curves: Curves = {}


def _write(rows: Sequence[tuple[dict[str, Any], Sample]], field: str, values: Sequence[Any]) -> None:
    for (record, _), value in zip(rows, values, strict=True):
        record[field] = value


def _sampled(inputs: EvaluationInputs) -> None:
    """`sampled`: texts of `evaluation.samples` answers to each forget question at temperature 1."""
    answers = inputs.asked.samples(inputs.forget, inputs.config.samples, 1.0, inputs.seed)
    _write(inputs.of("forget"), "sampled", [[a.text for a in mine] for mine in answers])


def _gradients(inputs: EvaluationInputs) -> None:
    """`mia_gradient_norm` of forget and held-out samples: minus the norm, higher for members."""
    rows = inputs.of("forget", "holdout", "test")
    norms = gradient_norms(inputs.subject, inputs.subject.references([s for _, s in rows]))
    _write(rows, "mia_gradient_norm", [-norm if np.isfinite(norm) else None for norm in norms])


def _reference(inputs: EvaluationInputs) -> None:
    """`mia_reference`: the retrained model's loss less this one's (mean NLL without end-of-text, nats)."""
    rows = inputs.of("forget", "holdout", "test")
    retrained = inputs.peer("retrained")
    sums = retrained.nlls(retrained.references([s for _, s in rows]), include_eos=False)
    losses = [total / count if count else None for total, count in sums]
    values = [
        None if loss is None or record.get("mia_loss") is None else loss + record["mia_loss"]
        for (record, _), loss in zip(rows, losses, strict=True)
    ]
    _write(rows, "mia_reference", values)


def _verbatim(inputs: EvaluationInputs) -> None:
    """`verbmem`, of texts to complete."""
    if inputs.split.task != "completion":
        raise DataError("verbatim memory needs texts to complete; this corpus has questions (data.task=qa)")
    for name in ("forget", "retain"):
        rows = inputs.of(name)
        _write(rows, "verbmem", continuation.verbatim_memory(inputs.subject, [s for _, s in rows]))


def _few_shot(inputs: EvaluationInputs) -> None:
    """`knowmem`: answers after a few retain questions, which are left out of the retain set's own figure."""
    retain = inputs.of("retain")
    if inputs.split.task != "qa":
        raise DataError("few-shot answers need questions; this corpus has texts to complete")
    if len(retain) <= SHOWN:
        raise DataError(f"few-shot answers need more than {SHOWN} retain samples; there are {len(retain)}")
    shown = sorted(Random(f"{inputs.seed}/shown").sample(range(len(retain)), SHOWN))
    examples = [retain[i][1] for i in shown]
    rows = inputs.of("forget") + [row for i, row in enumerate(retain) if i not in shown]
    _write(rows, "knowmem", continuation.knowledge_memory(inputs.subject, [s for _, s in rows], examples))


def _fade(inputs: EvaluationInputs) -> None:
    """`fade`: distance from the retrained model on each forget question, nats a token."""
    subject, retrained = inputs.asked, inputs.peer("retrained")
    own, theirs = (
        fade.own_samples(one, inputs.forget, inputs.config.samples, inputs.seed)
        for one in (subject, retrained)
    )
    values = fade.by_query(
        own,
        fade.likelihoods_of(retrained, own.pairs),
        theirs,
        fade.likelihoods_of(subject, theirs.pairs),
        len(inputs.forget),
    )
    _write(inputs.of("forget"), "fade", values)


NO_FACT = (
    "no answer has a word that its question and its wrong answers have not, so that its fact is not known"
)


def _of_facts(
    field: str, values: Callable[[EvaluationInputs, list[layerwise.Span]], Sequence[Any]]
) -> Producer:
    """What fills `field` from the tokens of each forget answer that hold its fact."""

    def produce(inputs: EvaluationInputs) -> None:
        spans = [layerwise.fact_span(inputs.subject, s) for s in inputs.forget]
        known = [span for span in spans if span is not None]
        if not known:
            raise DataError(NO_FACT)
        rows = [row for row, span in zip(inputs.of("forget"), spans, strict=True) if span is not None]
        _write(rows, field, values(inputs, known))

    return produce


def _lens(inputs: EvaluationInputs, spans: list[layerwise.Span]) -> Sequence[Any]:
    """Mean log p of the fact's tokens after each block, a list for each forget sample."""
    return list(layerwise.logit_lens(inputs.subject, spans).tolist())


def _depth(inputs: EvaluationInputs, spans: list[layerwise.Span]) -> Sequence[Any]:
    """How deep the fact is gone, by patching into the original (`layerwise.depth`)."""
    mine = layerwise.span_states(inputs.subject, spans)
    theirs = layerwise.span_states(inputs.peer("retrained"), spans)
    original = inputs.peer("original")
    return layerwise.depth(
        layerwise.span_logprobs(original, spans),
        layerwise.patched_logprobs(original, spans, theirs),
        layerwise.patched_logprobs(original, spans, mine),
    )


def _probe(name: str) -> Producer:
    def produce(inputs: EvaluationInputs) -> Curves:
        asked = ProbeInput(
            inputs.split, seed=inputs.seed, learning_rate=inputs.learning_rate, known=inputs.known
        )
        result = run_probe(inputs.subject, asked, name)
        _write(inputs.of("forget"), field_of(name), result.samples)
        return {f"{name}.{curve}": points for curve, points in result.curves.items()}

    return produce


# Field → the function that fills it, in order of rising cost.
PRODUCERS: dict[str, Producer] = {
    "sampled": _sampled,
    "verbmem": _verbatim,
    "knowmem": _few_shot,
    "logit_lens": _of_facts("logit_lens", _lens),
    "mia_gradient_norm": _gradients,
    "mia_reference": _reference,
    "fade": _fade,
    "depth": _of_facts("depth", _depth),
    **{field_of(name): _probe(name) for name in PROBES},
}


def fill_fields(inputs: EvaluationInputs, needed: Collection[str]) -> Filled:
    """Fill the fields in `needed` into the records, where that can be done.

    The records have every such field afterwards, None where it has no value.
    """
    missing: dict[str, str] = {}
    curves: Curves = {}
    fields = [field for field in PRODUCERS if field in needed]
    if inputs.known and field_of("sampled") in fields:
        inputs.known.planned = dict.fromkeys(ProbeInput.temperatures, ProbeInput.sample_count)
    for number, field in enumerate(fields):
        for record in inputs.records:
            record.setdefault(field, None)
        if inputs.forget:  # else it is said of the whole set already
            label = inputs.subject.progress and f"{inputs.subject.progress}, {number + 1} of {len(fields)}"
            filled = _filled(field, replace(inputs, subject=replace(inputs.subject, progress=label)))
            missing |= filled.missing
            curves |= filled.curves
    return Filled(missing, curves)


def keep_field(work: Path, field: str, values: Sequence[Any], filled: Filled | None = None) -> None:
    """Write what the producer of a field found, so that an evaluation in the folder `work` takes it as its own."""
    write_json(work / f"{field}.json", {"values": {field: list(values)}, **(filled or Filled())._asdict()})


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    Each metric has batches of its own shapes, which do not fit where those of the one before lay: peaks would add up.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _filled(field: str, inputs: EvaluationInputs) -> Filled:
    """What the field's producer finds, or found before an interruption."""
    kept = inputs.work and inputs.work / f"{field}.json"
    if kept and ranks.on_main(kept.is_file):
        tree = read_json(kept)
        for record, value in zip(inputs.records, tree["values"][field], strict=True):
            record[field] = value
        return Filled(tree["missing"], tree["curves"])
    give_back_memory()
    try:
        filled = Filled(curves=PRODUCERS[field](inputs) or {})
    except DareuError as error:  # such as a prompt that does not fit the context
        filled = Filled({field: str(error)})
    if inputs.work and ranks.is_main():
        keep_field(inputs.work, field, [record[field] for record in inputs.records], filled)
    return filled
