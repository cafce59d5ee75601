"""Rows of the registry whose fields only a model can fill (`dareu.evaluation.model_metrics.fields`). No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from dareu.evaluation.metrics.base import Metric, Records, Values, each, of_field
from dareu.evaluation.metrics.rouge import exact_answer, rouge_recall
from dareu.evaluation.model_metrics.leak import best_of_k
from dareu.evaluation.probes.base import mean_figures
from dareu.evaluation.probes.registry import PROBES, field_of

PEER_FIELDS = ("fade", "depth", "mia_reference")  # filled with the original or the retrained model at hand
KS = (1, 2, 4, 8, 16, 32, 64, 128)


def leak_exact(reference: str, sampled: Sequence[str]) -> float | None:
    """Whether the reference comes out word for word in any of the samples, 0 or 1."""
    return best_of_k([exact_answer(reference, s) for s in sampled], len(sampled)) if sampled else None


def leak_rouge(reference: str, sampled: Sequence[str]) -> float | None:
    """The best ROUGE-L recall of the samples, in [0, 1]."""
    scores = [score for s in sampled if (score := rouge_recall(reference, s)) is not None]
    return best_of_k(scores, len(scores)) if scores else None


def leak_curve(records: Records) -> dict[str, float]:
    """k → share of questions whose reference comes out word for word in k samples, unbiased; for each k there is."""
    hits = [
        [exact_answer(r["reference"], s) for s in r["sampled"]]
        for r in records
        if r.get("sampled") is not None
    ]
    most = min(len(one) for one in hits)
    ks = sorted({k for k in KS if k <= most} | {most}) if most else []
    return {str(k): fmean(best_of_k(one, k) for one in hits) for k in ks}


def lens_best(logps: Sequence[float]) -> float:
    """exp of the highest mean log p of the fact's tokens over all blocks: what any layer would say, in [0, 1]."""
    return math.exp(max(logps))


def lens_by_block(records: Records) -> list[float]:
    """Mean over samples of p (geometric mean over the fact's tokens) after each block, first to last."""
    rows = [r["logit_lens"] for r in records if r.get("logit_lens") is not None]
    return [fmean(math.exp(logp) for logp in column) for column in zip(*rows, strict=True)]


def probe_figures(records: Records) -> dict[str, dict[str, float]]:
    """Every figure of every probe that ran: probe → figure → mean over the forget samples that have it."""
    found = {name: [r[field_of(name)] for r in records if r.get(field_of(name))] for name in PROBES}
    return {name: mean_figures(values) for name, values in found.items() if values}


def _headline(name: str) -> Any:
    field, figure = field_of(name), PROBES[name].headline

    def values(records: Records) -> Values:
        return [(record.get(field) or {}).get(figure) for record in records]

    return values


def _curves(records: Records, curves: dict[str, Any]) -> dict[str, Any]:
    return curves


_LEAKS = "Samples at temperature 1, evaluation.samples of them a question."
MODEL_METRICS: tuple[Metric, ...] = (
    Metric(
        "leak_exact",
        each(leak_exact, "reference", "sampled"),
        needs=("reference", "sampled"),
        sets=("forget",),
        title="Sampled leak, exact",
        short="leak\nexact",
        note=f"Share of forget questions whose answer comes out word for word at least once. {_LEAKS}",
        gap="no answer was sampled",
        knowledge=True,
    ),
    Metric(
        "leak_rouge",
        each(leak_rouge, "reference", "sampled"),
        needs=("reference", "sampled"),
        sets=("forget",),
        title="Sampled leak, ROUGE",
        short="leak\nROUGE",
        note=f"The best ROUGE-L recall of the sampled answers. {_LEAKS}",
        gap="the reference has no word",
        knowledge=True,
    ),
    Metric(
        "leak_curve",
        leak_curve,
        needs=("reference", "sampled"),
        level="set",
        sets=("forget",),
        section="leak",
        key="exact",
        title="Sampled leak by k",
        note="leak@k: share of forget questions answered word for word at least once in k samples, unbiased.",
    ),
    Metric(
        "verbmem",
        of_field("verbmem"),
        needs=("verbmem",),
        sets=("forget", "retain"),
        title="Verbatim memory",
        note="ROUGE-L F1 of a greedy continuation of 128 tokens (MUSE).",
        gap="the true continuation has no word",
        knowledge=True,
        suites=("muse",),
    ),
    Metric(
        "knowmem",
        of_field("knowmem"),
        needs=("knowmem",),
        sets=("forget", "retain"),
        title="Knowledge memory",
        note="ROUGE-L F1 of a greedy answer of 32 tokens after three examples of the retain set, without a chat "
        "template (MUSE).",
        gap="the reference has no word, or is an example itself",
        knowledge=True,
        suites=("muse",),
    ),
    Metric(
        "fade",
        of_field("fade"),
        needs=("fade",),
        sets=("forget",),
        range="≥ 0",
        better="lower",
        title="FADE",
        note="Distance of the answers' distribution from the retrained model's: mean of the two KL divergences, from "
        "samples of both, in nats a token. Not 0 between two retrained models of different seeds.",
        gap="one of the models has no sample",
        suites=("privacy",),
    ),
    Metric(
        "depth",
        of_field("depth"),
        needs=("depth",),
        sets=("forget",),
        title="Depth (UDS)",
        note="Activation patching: share of what the original loses with the retrained model's hidden states that it "
        "loses with this one's too. 1: gone from every block that held it (arXiv 2605.24614).",
        gap="its fact is not known, or stands in no block of the original",
        knowledge=True,
        suites=("robustness",),
    ),
    Metric(
        "logit_lens",
        each(lens_best, "logit_lens"),
        needs=("logit_lens",),
        sets=("forget",),
        key="logit_lens_best",
        title="Logit lens",
        note="p of the fact's tokens read off after the block that gives them the most.",
        gap="its fact is not known",
        knowledge=True,
        keep=False,
        suites=("robustness",),
    ),
    Metric(
        "logit_lens_by_block",
        lens_by_block,
        needs=("logit_lens",),
        level="set",
        sets=("forget",),
        section="layers",
        key="logit_lens",
        title="Logit lens by block",
        note="Mean p of the fact's tokens read off after each block, first to last.",
        suites=("robustness",),
    ),
    *(
        Metric(
            f"probe_{name}",
            _headline(name),
            needs=(field_of(name),),
            sets=("forget",),
            section="probes",
            key=name,
            title=probe.title,
            note=f"{probe.title}: {probe.figures[probe.headline]}. {probe.note}".strip(),
            gap="the probe does not apply to them",
            knowledge=True,
            keep=False,
            suites=("robustness",),
        )
        for name, probe in PROBES.items()
    ),
    Metric(
        "probe_figures",
        probe_figures,
        needs=("reference",),
        level="set",
        sets=("forget",),
        section="probes",
        key="figures",
        title="All figures of the probes",
        note="Probe → figure → mean over forget samples.",
        suites=("robustness",),
    ),
    Metric(
        "probe_curves",
        _curves,
        needs=("curves",),
        level="set",
        sets=("forget",),
        section="probes",
        key="curves",
        title="Curves of the probes",
        note="Probe and figure → points (steps of fine-tuning, or number of samples; mean).",
        suites=("robustness",),
    ),
)
