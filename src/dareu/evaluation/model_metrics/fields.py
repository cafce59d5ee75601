"""Fields of the records that only a model can fill: each group is computed where a metric of the suite reads one.

The metrics themselves are rows of `dareu.evaluation.metrics.registry` that read these fields. A new group is one
function and one row of `PRODUCERS`.
"""

import ctypes
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from dareu.config import EvaluationConfig
from dareu.data.corpus import Sample, Split
from dareu.data.render import encode
from dareu.errors import DareuError, DataError
from dareu.evaluation.answer_likelihoods import context_length
from dareu.evaluation.metrics.registry import INPUTS
from dareu.evaluation.model_metrics import continuation, fade, layerwise
from dareu.evaluation.model_metrics.answers import sampled_answers
from dareu.evaluation.model_metrics.gradient_norm import gradient_norms
from dareu.evaluation.probes.base import ProbeInput
from dareu.evaluation.probes.registry import PROBES, field_of
from dareu.runs import ranks
from dareu.runs.files import read_json, write_json

Peer = Callable[[], tuple[Any, Any]]  # loads another checkpoint: (model, tokenizer)
SHOWN = 3  # questions and answers before a few-shot question
DEFAULT_LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class EvaluationInputs:
    """What producers read. `records` are filled in place; `samples` are theirs, in the same order.

    In `work`, where it is given, a file keeps what each producer found, for an evaluation that is interrupted.
    """

    model: Any
    tokenizer: Any
    split: Split
    records: Sequence[dict[str, Any]]
    samples: Sequence[Sample]
    config: EvaluationConfig
    peers: Mapping[str, Peer]
    seed: int
    learning_rate: float
    progress: str | None = None
    work: Path | None = None

    def of(self, *sets: str) -> list[tuple[dict[str, Any], Sample]]:
        """Records and samples of some sets, in order."""
        return [(r, s) for r, s in zip(self.records, self.samples, strict=True) if r["set"] in sets]

    def peer(self, name: str) -> tuple[Any, Any]:
        """Another model of the run, loaded. `DataError` where there is none, or its tokens are others."""
        if name not in self.peers:
            raise DataError(f"{INPUTS[name]}.")
        model, tokenizer = self.peers[name]()
        if tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise DataError(
                f"The {name} model has another vocabulary, so its tokens cannot be compared.",
                "Give a model that was fine-tuned from the same base.",
            )
        model.to(self.model.device)
        return model, tokenizer

    @cached_property
    def forget(self) -> list[Sample]:
        return [s for _, s in self.of("forget")]


class Filled(NamedTuple):
    """`missing`: field → why it could not be filled, and what to do. `curves`: name → points, of probes."""

    missing: dict[str, str] = {}
    curves: dict[str, list[tuple[float, float]]] = {}


def _write(rows: Sequence[tuple[dict[str, Any], Sample]], field: str, values: Sequence[Any]) -> None:
    for (record, _), value in zip(rows, values, strict=True):
        record[field] = value


def _sampled(inputs: EvaluationInputs) -> Filled:
    """`sampled`: texts of `evaluation.samples` answers to each forget question at temperature 1."""
    answers = sampled_answers(
        inputs.model,
        inputs.tokenizer,
        inputs.forget,
        inputs.split.task,
        count=inputs.config.samples,
        temperature=1.0,
        batch_size=inputs.config.batch_size,
        seed=inputs.seed,
        progress=inputs.progress and f"{inputs.progress}: samples",
    )
    _write(inputs.of("forget"), "sampled", [[a.text for a in mine] for mine in answers])
    return Filled()


def _gradients(inputs: EvaluationInputs) -> Filled:
    """`mia_gradient_norm` of forget and held-out samples: minus the norm, higher for members."""
    rows = inputs.of("forget", "holdout", "test")
    context = context_length(inputs.model)
    pairs = [encode(inputs.tokenizer, s.prompt, s.response, inputs.split.task, context) for _, s in rows]
    progress = inputs.progress and f"{inputs.progress}: gradients"
    norms = gradient_norms(inputs.model, inputs.tokenizer, pairs, progress=progress)
    _write(rows, "mia_gradient_norm", [-norm if np.isfinite(norm) else None for norm in norms])
    return Filled()


def _reference(inputs: EvaluationInputs) -> Filled:
    """`mia_reference`: the retrained model's loss less this one's (mean NLL without end-of-text, nats)."""
    from dareu.models.logprobs import response_nll

    rows = inputs.of("forget", "holdout", "test")
    model, tokenizer = inputs.peer("retrained")
    context = context_length(inputs.model)
    pairs = [encode(tokenizer, s.prompt, s.response, inputs.split.task, context) for _, s in rows]
    sums = response_nll(model, tokenizer, pairs, batch_size=inputs.config.batch_size, include_eos=False)
    losses = [total / count if count else None for total, count in sums]
    values = [
        None if loss is None or record.get("mia_loss") is None else loss + record["mia_loss"]
        for (record, _), loss in zip(rows, losses, strict=True)
    ]
    _write(rows, "mia_reference", values)
    return Filled()


def _verbatim(inputs: EvaluationInputs) -> Filled:
    """`verbmem`, of texts to complete."""
    if inputs.split.task != "completion":
        return Filled(
            {"verbmem": "verbatim memory needs texts to complete; this corpus has questions (data.task=qa)"}
        )
    for name in ("forget", "retain"):
        rows = inputs.of(name)
        samples = [s for _, s in rows]
        values = continuation.verbatim_memory(
            inputs.model, inputs.tokenizer, samples, inputs.split.task, batch_size=inputs.config.batch_size
        )
        _write(rows, "verbmem", values)
    return Filled()


def _few_shot(inputs: EvaluationInputs) -> Filled:
    """`knowmem`: answers after a few retain questions, which are left out of the retain set's own figure."""
    retain = inputs.of("retain")
    if inputs.split.task != "qa":
        return Filled({"knowmem": "few-shot answers need questions; this corpus has texts to complete"})
    if len(retain) <= SHOWN:
        return Filled(
            {"knowmem": f"few-shot answers need more than {SHOWN} retain samples; there are {len(retain)}"}
        )
    shown = sorted(Random(f"{inputs.seed}/shown").sample(range(len(retain)), SHOWN))
    examples = [retain[i][1] for i in shown]
    rows = inputs.of("forget") + [row for i, row in enumerate(retain) if i not in shown]
    samples = [s for _, s in rows]
    values = continuation.knowledge_memory(
        inputs.model, inputs.tokenizer, samples, examples, batch_size=inputs.config.batch_size
    )
    _write(rows, "knowmem", values)
    return Filled()


def _fade(inputs: EvaluationInputs) -> Filled:
    """`fade`: distance from the retrained model on each forget question, nats a token."""
    retrained, tokenizer = inputs.peer("retrained")
    options: dict[str, Any] = {
        "count": inputs.config.samples,
        "batch_size": inputs.config.batch_size,
        "seed": inputs.seed,
    }
    own = fade.own_samples(inputs.model, inputs.tokenizer, inputs.forget, inputs.split.task, **options)
    theirs = fade.own_samples(retrained, tokenizer, inputs.forget, inputs.split.task, **options)
    values = fade.by_query(
        own,
        fade.likelihoods_of(retrained, tokenizer, own.pairs, inputs.config.batch_size),
        theirs,
        fade.likelihoods_of(inputs.model, inputs.tokenizer, theirs.pairs, inputs.config.batch_size),
        len(inputs.forget),
    )
    _write(inputs.of("forget"), "fade", values)
    return Filled()


def _spans(inputs: EvaluationInputs) -> tuple[list[int], list[layerwise.Span]]:
    """Which forget samples have a fact to look at, and its tokens."""
    context = context_length(inputs.model)
    found = [layerwise.fact_span(inputs.tokenizer, s, inputs.split.task, context) for s in inputs.forget]
    some = [i for i, span in enumerate(found) if span is not None]
    return some, [span for span in found if span is not None]


NO_FACT = (
    "no answer has a word that its question and its wrong answers have not, so that its fact is not known"
)


def _lens(inputs: EvaluationInputs) -> Filled:
    """`logit_lens`: mean log p of the fact's tokens after each block, a list for each forget sample."""
    some, spans = _spans(inputs)
    if not spans:
        return Filled({"logit_lens": NO_FACT})
    values = layerwise.logit_lens(inputs.model, inputs.tokenizer, spans, inputs.config.batch_size)
    rows = inputs.of("forget")
    _write([rows[i] for i in some], "logit_lens", values.tolist())
    return Filled()


def _depth(inputs: EvaluationInputs) -> Filled:
    """`depth`: how deep the fact is gone, by patching into the original (`layerwise.depth`)."""
    some, spans = _spans(inputs)
    if not spans:
        return Filled({"depth": NO_FACT})
    batch_size = inputs.config.batch_size
    mine = layerwise.span_states(inputs.model, inputs.tokenizer, spans, batch_size)
    retrained, tokenizer = inputs.peer("retrained")
    theirs = layerwise.span_states(retrained, tokenizer, spans, batch_size)
    del retrained
    original, tokenizer = inputs.peer("original")
    values = layerwise.depth(
        layerwise.span_logprobs(original, tokenizer, spans, batch_size),
        layerwise.patched_logprobs(original, tokenizer, spans, theirs, batch_size),
        layerwise.patched_logprobs(original, tokenizer, spans, mine, batch_size),
    )
    rows = inputs.of("forget")
    _write([rows[i] for i in some], "depth", values)
    return Filled()


def _probe(name: str) -> Callable[[EvaluationInputs], Filled]:
    def produce(inputs: EvaluationInputs) -> Filled:
        from dareu.evaluation.probes.registry import run_probes

        asked = ProbeInput(
            inputs.split,
            batch_size=inputs.config.batch_size,
            seed=inputs.seed,
            learning_rate=inputs.learning_rate,
        )
        results, missing = run_probes(inputs.model, inputs.tokenizer, asked, [name])
        if name in missing:
            return Filled({field_of(name): missing[name]})
        result = results[name]
        _write(inputs.of("forget"), field_of(name), result.samples)
        return Filled({}, {f"{name}.{curve}": points for curve, points in result.curves.items()})

    return produce


class Producer(NamedTuple):
    """Fields that one function fills, in order of rising cost."""

    fields: tuple[str, ...]
    run: Callable[[EvaluationInputs], Filled]


PRODUCERS: tuple[Producer, ...] = (
    Producer(("sampled",), _sampled),
    Producer(("verbmem",), _verbatim),
    Producer(("knowmem",), _few_shot),
    Producer(("logit_lens",), _lens),
    Producer(("mia_gradient_norm",), _gradients),
    Producer(("mia_reference",), _reference),
    Producer(("fade",), _fade),
    Producer(("depth",), _depth),
    *(Producer((field_of(name),), _probe(name)) for name in PROBES),
)


def fill_fields(inputs: EvaluationInputs, needed: Collection[str]) -> Filled:
    """Fill the fields in `needed` into the records, where that can be done.

    The records have every such field afterwards, None where it has no value.
    """
    missing: dict[str, str] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for producer in PRODUCERS:
        wanted = [field for field in producer.fields if field in needed]
        if not wanted:
            continue
        for record in inputs.records:
            for field in wanted:
                record.setdefault(field, None)
        if not inputs.forget:
            continue  # said of the whole set already
        found = _filled(producer, inputs, wanted)
        missing |= found.missing
        curves |= found.curves
    return Filled(missing, curves)


def keep_field(work: Path, field: str, values: Sequence[Any]) -> None:
    """Write what a producer of one field found, so that an evaluation in the folder `work` takes it as its own."""
    write_json(work / f"{field}.json", {"values": {field: list(values)}, **Filled()._asdict()})


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    Each metric has batches of its own shapes, which do not fit where those of the one before lay: peaks would add up.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _filled(producer: Producer, inputs: EvaluationInputs, wanted: Sequence[str]) -> Filled:
    """What the producer finds, or found before an interruption."""
    kept = inputs.work and inputs.work / f"{producer.fields[0]}.json"
    if kept and ranks.on_main(kept.is_file):
        tree = read_json(kept)
        for field in wanted:
            for record, value in zip(inputs.records, tree["values"][field], strict=True):
                record[field] = value
        return Filled(tree["missing"], tree["curves"])
    give_back_memory()
    try:
        found = producer.run(inputs)
    except DareuError as error:  # such as a prompt that does not fit the context
        found = Filled(dict.fromkeys(wanted, str(error)))
    if kept and ranks.is_main():
        values = {field: [record[field] for record in inputs.records] for field in wanted}
        write_json(kept, {"values": values, **found._asdict()})
    return found
