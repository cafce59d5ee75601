"""The table of probes. No torch here: what a probe runs is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dareu.evaluation.metrics.base import lazily
from dareu.evaluation.probes.base import Probe


def _run(place: str) -> Callable[..., Any]:
    return lazily(f"dareu.evaluation.probes.{place}")


def field_of(name: str) -> str:
    """The field of the records that holds what a probe found: its figures, a dict for each forget sample."""
    return f"{name}_figures"


_ANSWERS = {
    "rouge_l": "ROUGE-L recall of the answer",
    "exact": "share of answers that are the forgotten one word for word",
    "probability": "exp(−mean NLL) of the forgotten answer",
}
_AREAS = {f"{name}_area": f"mean over all steps of: {meaning}" for name, meaning in _ANSWERS.items()}
_SAMPLED = {
    f"{name}_t{t:g}": f"best of all samples at temperature {t:g}: {_ANSWERS[name]}"
    for t in (0.8, 1.0)
    for name in ("exact", "rouge_l")
}

PROBES: dict[str, Probe] = {
    "paraphrase": Probe(
        "Paraphrased questions",
        _run("prompts:paraphrased"),
        {name: f"{meaning}, highest over the paraphrases" for name, meaning in _ANSWERS.items()}
        | {f"{name}_mean": f"{meaning}, mean over the paraphrases" for name, meaning in _ANSWERS.items()},
        "rouge_l",
        "The data's own paraphrases; where a sample has none, five templates.",
    ),
    "attacks": Probe(
        "Adversarial prompts",
        _run("prompts:attacked"),
        _ANSWERS,
        "rouge_l",
        "Those that the data source brings along.",
    ),
    "multiple_choice": Probe(
        "Multiple choice",
        _run("prompts:multiple_choice"),
        {"probability": "p of the right letter among the letters", "chosen": "share of right letters"},
        "probability",
    ),
    "yes_no": Probe(
        "Yes or no",
        _run("prompts:yes_or_no"),
        {
            "told_apart": "wrong answers less likely affirmed than the right one",
            "yes": "p(yes) of the right answer",
        },
        "told_apart",
    ),
    "first_words": Probe(
        "First words given",
        _run("prompts:first_words"),
        {name: f"{_ANSWERS[name]}, of the rest" for name in ("rouge_l", "exact")},
        "rouge_l",
    ),
    "without_template": Probe(
        "Without the chat template", _run("prompts:without_template"), _ANSWERS, "rouge_l"
    ),
    "second_turn": Probe(
        "Are you sure?",
        _run("prompts:second_turn"),
        {name: f"{_ANSWERS[name]}, second turn" for name in ("rouge_l", "exact")}
        | {"either": "share of questions with the forgotten answer word for word in one of two turns"},
        "rouge_l",
    ),
    "sampled": Probe("Sampled answers", _run("prompts:sampled"), _SAMPLED, "rouge_l_t1"),
    "int8": Probe("8-bit weights", _run("quantisation:int8"), _ANSWERS, "probability"),
    "int4": Probe("4-bit weights", _run("quantisation:int4"), _ANSWERS, "probability"),
    "nf4": Probe("4-bit NormalFloat weights", _run("quantisation:nf4"), _ANSWERS, "probability"),
    "relearn_forget": Probe(
        "Relearning on a tenth of the forget set",
        _run("relearning:relearn_forget"),
        _ANSWERS | _AREAS,
        "probability_area",
        "Measured on the part of the forget set that is not shown.",
    ),
    "relearn_unrelated": Probe(
        "Relearning on unrelated text",
        _run("relearning:relearn_unrelated"),
        _ANSWERS | _AREAS,
        "probability_area",
    ),
    "benign": Probe("Benign fine-tuning", _run("relearning:benign"), _ANSWERS | _AREAS, "probability_area"),
}
