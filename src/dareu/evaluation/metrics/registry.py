"""Every metric, one row each: what it is computed from, where it stands, which way is better. No torch here.

The suite, the tables on the screen, the report, tuning and the documentation read this table. A new metric is one
function and one row. Other packages add theirs by an entry point in the group `dareu.metrics`, which is either a
`Metric` (a row like those below) or a function that takes the records of one model (a list of dicts) and returns a
dict of figures, kept as `extra.<name>`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from dareu.evaluation import comparison
from dareu.evaluation.metrics import likelihood, text_health, words
from dareu.evaluation.metrics.attribution import attribution_mass, reattributed
from dareu.evaluation.metrics.base import SETS, Direction, Metric, Records, each
from dareu.evaluation.metrics.membership import attack
from dareu.evaluation.metrics.model_rows import MODEL_METRICS, PEER_FIELDS
from dareu.evaluation.metrics.rouge import exact_answer, rouge_f1, rouge_recall
from dareu.evaluation.metrics.utility import model_utility
from dareu.evaluation.model_metrics.token_scores import exact_memorisation, extraction_strength
from dareu.evaluation.probes.registry import PROBES, field_of

__all__ = ["INPUTS", "METRICS", "SETS", "Direction", "Metric", "Records", "metrics_of", "registry"]

GROUP = "dareu.metrics"
ExtraMetric = Callable[[list[dict[str, Any]]], dict[str, Any]]

# Inputs that are no fields of the records → the reason where one is absent.
INPUTS = {
    "attribution": "there is no such attributor",
    "attribution_heldout": "there is no such attributor",
    "corpus_words": "the words of the corpus are not known",
    "known_words": "the words of the corpus are not known",
    "character_model": "the texts of the corpus are not known",
    "holdout": "there is no held-out set to compare with",
    "model": "it needs the model itself; records alone do not hold it",
    "retrained": "there is no retrained model to compare with (retrain=false)",
    "original": "there is no original model to compare with",
    "curves": "no probe that ran gives a curve",
    "truth_ratio_mean": "the definition of the truth ratio is not named",
}
# Inputs that are known only once every model of a run has answered.
LATE = ("corpus_words", "known_words", "character_model")
LIKELIHOOD_GAP = "the model's likelihood of the reference is not a finite number"

METRICS: tuple[Metric, ...] = (
    # Greedy answers
    Metric(
        "rouge_l",
        each(rouge_recall, "reference", "response"),
        needs=("reference", "response"),
        title="ROUGE",
        short="ROUGE",
        note="ROUGE-L recall of greedy answers: how much of the reference comes back.",
        gap="the reference has no word",
        knowledge=True,
    ),
    Metric(
        "rouge_l_f1",
        each(rouge_f1, "reference", "response"),
        needs=("reference", "response"),
        title="ROUGE F1",
        note="ROUGE-L F1 of greedy answers: recall, and how much of the answer stands in the reference.",
        gap="the reference has no word",
        knowledge=True,
    ),
    Metric(
        "exact",
        each(exact_answer, "reference", "response"),
        needs=("reference", "response"),
        title="Exact answers",
        short="exact",
        note="Share of questions that are answered with the reference word for word.",
        knowledge=True,
    ),
    # Likelihoods
    Metric(
        "probability",
        likelihood.probabilities,
        needs=("nll", "truth_ratio_mean"),
        title="Probability",
        short="proba-\nbility",
        note="exp(−mean token NLL) of the reference answer; in multiple-choice sets over the sum with the wrong ones.",
        gap=LIKELIHOOD_GAP,
        knowledge=True,
    ),
    Metric(
        "probability_normalised",
        each(likelihood.normalised_probability, "nll", "wrong_nlls"),
        needs=("nll", "wrong_nlls"),
        title="Normalised probability",
        note="p / (p + Σ p_wrong) of the reference among the wrong answers.",
        gap="no wrong answers, or a likelihood that is not finite",
        suites=("tofu",),
        knowledge=True,
    ),
    Metric(
        "truth_ratio",
        likelihood.truth_ratios,
        needs=("wrong_nlls", "truth_ratio_mean"),
        title="Truth ratio",
        short="truth\nratio",
        note="R = likelihood of wrong answers over that of the paraphrased right one. Forget: mean min(R, 1/R); "
        "other sets: mean max(0, 1 − R).",
        gap="no wrong answers (that fit the model's context), or a likelihood that is not finite",
        contribution=likelihood.truth_contribution,
        knowledge=True,
    ),
    Metric(
        "extraction_strength",
        each(lambda hits: extraction_strength(as_hits(hits)), "hits"),
        needs=("hits",),
        title="Extraction strength",
        short="extrac-\ntion",
        note="1 − k/L, k the shortest prefix of the reference after which every token is the likeliest one.",
        gap="the reference has no token",
        knowledge=True,
    ),
    Metric(
        "exact_memorisation",
        each(lambda hits: exact_memorisation(as_hits(hits)), "hits"),
        needs=("hits",),
        title="Exact memorisation",
        short="memo-\nrised",
        note="Share of the reference's tokens that are the likeliest ones, given the true ones before them.",
        gap="the reference has no token",
        knowledge=True,
    ),
    # Membership inference: forget set against held-out
    *(
        Metric(
            f"membership_{key}",
            attack(f"mia_{key}"),
            needs=(f"mia_{key}", "holdout"),
            sets=("forget",),
            section="membership",
            key=key,
            title=f"Membership, {title}",
            note=f"AUC in telling forget from held-out samples by {title}; read beside the retrained model's.",
            gap="the reference has no score",
            knowledge=True,
            keep=False,
        )
        for key, title in {
            "loss": "loss",
            "zlib": "loss over compressed length",
            "min_k_20": "the 20 % least likely tokens (min-k)",
            "min_k_40": "the 40 % least likely tokens (min-k)",
            "min_k_plus_20": "the 20 % least likely tokens, normalised (min-k++)",
            "min_k_plus_40": "the 40 % least likely tokens, normalised (min-k++)",
        }.items()
    ),
    *(
        Metric(
            f"membership_{key}",
            attack(f"mia_{key}"),
            needs=(f"mia_{key}", "holdout"),
            sets=("forget",),
            section="membership",
            key=key,
            title=f"Membership, {title}",
            note=f"AUC in telling forget from held-out samples by {title}; read beside the retrained model's.",
            gap="the reference has no score",
            knowledge=True,
            keep=False,
            suites=("privacy",),
        )
        for key, title in {
            "gradient_norm": "the norm of the gradient",
            "reference": "the difference of loss to a reference model",
        }.items()
    ),
    # Whose text it is
    Metric(
        "attribution",
        attribution_mass("attribution"),
        needs=("attribution",),
        sets=("forget",),
        title="Attribution",
        short="attri-\nbution",
        note="Share of an answer that the attribution classifier ascribes to the forgotten owners. "
        "DareU trains against this one.",
        knowledge=True,
    ),
    Metric(
        "reattribution",
        reattributed("attribution"),
        needs=("attribution",),
        sets=("forget",),
        title="Re-attribution",
        short="re-\nattr.",
        note="Share of forget answers ascribed with high confidence to an owner that the question is not about.",
        keep=False,
    ),
    Metric(
        "attribution_heldout",
        attribution_mass("attribution_heldout"),
        needs=("attribution_heldout",),
        sets=("forget",),
        title="Held-out attribution",
        short="held-\nout",
        note="The same as attribution by an attributor that no method trains against.",
        knowledge=True,
    ),
    Metric(
        "reattribution_heldout",
        reattributed("attribution_heldout"),
        needs=("attribution_heldout",),
        sets=("forget",),
        title="Re-attribution, held out",
        note="Re-attribution by the held-out attributor.",
        keep=False,
    ),
    # Text health
    Metric(
        "empty",
        each(text_health.empty, "response"),
        needs=("response",),
        sets=("forget", "retain"),
        section="text_health",
        title="Empty",
        short="empty",
        note="Share of answers without a word.",
        keep=False,
    ),
    Metric(
        "unfinished",
        each(text_health.unfinished, "finished"),
        needs=("finished",),
        sets=("forget", "retain"),
        section="text_health",
        title="Unfinished",
        short="unfin-\nished",
        note="Share of answers that reach the length limit without an end.",
        keep=False,
    ),
    Metric(
        "repetitive",
        each(text_health.repetitive, "response"),
        needs=("response",),
        sets=("forget", "retain"),
        section="text_health",
        title="Repetitive",
        short="repet-\nitive",
        note="Share of answers with a 4-gram three times or more, or a word three times in a row.",
        keep=False,
    ),
    Metric(
        "distinct_2",
        text_health.distinct_2,
        needs=("response",),
        level="set",
        sets=("forget", "retain"),
        section="text_health",
        title="Distinct-2",
        note="Different word pairs over all word pairs of the answers.",
    ),
    Metric(
        "mean_length",
        text_health.mean_length,
        needs=("response",),
        level="set",
        sets=("forget", "retain"),
        section="text_health",
        range="≥ 0",
        title="Mean length",
        note="Words in an answer.",
    ),
    Metric(
        "broken",
        words.broken,
        needs=("response", "known_words"),
        sets=("forget", "retain"),
        section="text_health",
        title="Broken words",
        short="broken\nwords",
        note="Share of answers with a word that stands in no text of the corpus, no answer of the original or the "
        "retrained model and not in the question; numbers excepted.",
    ),
    Metric(
        "new_words",
        words.new_words,
        needs=("response", "corpus_words"),
        sets=("forget", "retain"),
        section="text_health",
        title="New words",
        note="Share of answers with a word that stands in no text of the corpus and not in the question; numbers "
        "excepted. Broken words are those that the original and the retrained model never say either.",
    ),
    Metric(
        "fluency",
        words.fluency,
        needs=("response", "character_model"),
        sets=("forget", "retain"),
        section="text_health",
        range="≤ 0",
        title="Fluency",
        note="Mean log p a character of the answers by a character 5-gram model of the corpus, in nats.",
        gap="the answer is empty",
    ),
    # The model as a whole
    Metric(
        "model_utility",
        model_utility,
        needs=("reference",),
        level="model",
        better="higher",
        title="Model utility",
        note="Harmonic mean of probability, ROUGE-L recall and truth ratio on retain, real authors, world facts.",
        suites=("tofu",),
    ),
    # The unlearned model beside the retrained one
    Metric(
        "tug_of_war",
        comparison.tug_of_war,
        needs=("retrained",),
        level="pair",
        better="higher",
        title="Tug-of-War",
        short="ToW",
        note="Product over forget, retain and test of 1 − |ROUGE difference to the retrained model|; 1 is best "
        "(Zhao et al. 2024). It does not see broken text.",
    ),
    Metric(
        "tug_of_war_without_test",
        comparison.tug_of_war_without_test,
        needs=("retrained",),
        level="pair",
        better="higher",
        title="Tug-of-War without test",
        short="ToW*",
        note="Tug-of-War over forget and retain only.",
    ),
    Metric(
        "retrain_similarity",
        comparison.retrain_similarity,
        needs=("retrained",),
        level="pair",
        better="higher",
        title="Retrain similarity",
        short="simil-\narity",
        note="Tug-of-War with three more factors: held-out attribution, repetitive and empty share. 1 is best.",
    ),
    Metric(
        "forget_quality",
        comparison.forget_quality_of,
        needs=("retrained",),
        level="pair",
        better="higher",
        title="Forget quality",
        short="forget\nquality",
        note="p of a Kolmogorov–Smirnov test of truth ratios against the retrained model's.",
    ),
    Metric(
        "privleak",
        comparison.privleak_of,
        needs=("retrained",),
        level="pair",
        range="0 is best",
        title="PrivLeak",
        note="Distance of the membership AUC (min-k 40 %) from the retrained model's, in per cent of 1 − that AUC; "
        "below 0 too much is left, above 0 too much is gone.",
    ),
    *MODEL_METRICS,
)


def as_hits(hits: str) -> Any:
    """ "1101" → an array of truth values: which tokens of a reference were the likeliest ones."""
    import numpy as np

    return np.array([mark == "1" for mark in hits], dtype=bool)


def registry() -> dict[str, Metric]:
    """Every metric by name: the table above, and rows of other packages; ours win over theirs of the same name."""
    rows: dict[str, Metric] = {}
    for name, point in extra_metrics().items():
        try:
            row = point.load()
        except Exception:  # its reason stands in the results, see `compute_extra`
            continue
        if isinstance(row, Metric):
            rows[row.name or name] = row
    return rows | {metric.name: metric for metric in METRICS}


def metrics_of(suite: str) -> list[Metric]:
    """The metrics of a named suite, in the order of the registry."""
    return [metric for metric in registry().values() if metric.in_suite(suite)]


def pair_metrics(suite: str = "fast") -> list[str]:
    """Names of the figures that compare the unlearned model with the retrained one."""
    return [metric.name for metric in metrics_of(suite) if metric.level == "pair"]


def needs_peers(suite: str) -> bool:
    """Whether a metric of the suite compares hidden states or samples with the original or the retrained model."""
    return any(need in PEER_FIELDS for metric in metrics_of(suite) for need in metric.needs)


def has_probes(suite: str) -> bool:
    """Whether the suite has probes."""
    fields = {field_of(name) for name in PROBES}
    return any(need in fields for metric in metrics_of(suite) for need in metric.needs)


def extra_metrics() -> dict[str, Any]:
    """Entry points of other packages by name; `.load()` gives a `Metric` or an `ExtraMetric`."""
    return {point.name: point for point in entry_points(group=GROUP)}


def compute_extra(records: Records) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures by metric name, and "extra.name" → reason for those that failed; none ends an evaluation."""
    figures: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, point in extra_metrics().items():
        try:
            metric = point.load()
            if not isinstance(metric, Metric):
                figures[name] = metric([dict(record) for record in records])
        except Exception as error:  # whatever foreign code raises is said in the results
            figures[name] = None
            missing[f"extra.{name}"] = f"{type(error).__name__}: {error}"
    return figures, missing
