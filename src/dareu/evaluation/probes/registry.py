"""The table of probes, and running them on one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dareu.errors import ConfigError, DareuError, nearest
from dareu.evaluation.probes import prompts, quantisation, relearning
from dareu.evaluation.probes.base import Gap, Probe, ProbeInput, ProbeResult

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
        prompts.paraphrased,
        {name: f"{meaning}, highest over the paraphrases" for name, meaning in _ANSWERS.items()}
        | {f"{name}_mean": f"{meaning}, mean over the paraphrases" for name, meaning in _ANSWERS.items()},
        "rouge_l",
        "The data's own paraphrases; where a sample has none, five templates.",
    ),
    "multiple_choice": Probe(
        "Multiple choice",
        prompts.multiple_choice,
        {"probability": "p of the right letter among the letters", "chosen": "share of right letters"},
        "probability",
    ),
    "yes_no": Probe(
        "Yes or no",
        prompts.yes_or_no,
        {
            "told_apart": "wrong answers less likely affirmed than the right one",
            "yes": "p(yes) of the right answer",
        },
        "told_apart",
    ),
    "first_words": Probe(
        "First words given",
        prompts.first_words,
        {name: f"{_ANSWERS[name]}, of the rest" for name in ("rouge_l", "exact")},
        "rouge_l",
    ),
    "without_template": Probe("Without the chat template", prompts.without_template, _ANSWERS, "rouge_l"),
    "second_turn": Probe(
        "Are you sure?",
        prompts.second_turn,
        {name: f"{_ANSWERS[name]}, second turn" for name in ("rouge_l", "exact")}
        | {"either": "share of questions with the forgotten answer word for word in one of two turns"},
        "rouge_l",
    ),
    "sampled": Probe("Sampled answers", prompts.sampled, _SAMPLED, "rouge_l_t1"),
    "int8": Probe("8-bit weights", quantisation.int8, _ANSWERS, "probability"),
    "int4": Probe("4-bit weights", quantisation.int4, _ANSWERS, "probability"),
    "nf4": Probe("4-bit NormalFloat weights", quantisation.nf4, _ANSWERS, "probability"),
    "relearn_forget": Probe(
        "Relearning on a tenth of the forget set",
        relearning.relearn_forget,
        _ANSWERS | _AREAS,
        "probability_area",
        "Measured on the part of the forget set that is not shown.",
    ),
    "relearn_unrelated": Probe(
        "Relearning on unrelated text", relearning.relearn_unrelated, _ANSWERS | _AREAS, "probability_area"
    ),
    "benign": Probe("Benign fine-tuning", relearning.benign, _ANSWERS | _AREAS, "probability_area"),
}


def run_probes(
    model: Any, tokenizer: Any, given: ProbeInput, names: Sequence[str] | None = None
) -> tuple[dict[str, ProbeResult], dict[str, str]]:
    """The results of the probes `names` (all of them by default), and for each that could not run: why, and the cure.

    The model is the same afterwards.

    Raises:
        ConfigError: for a name that no probe has.
    """
    results: dict[str, ProbeResult] = {}
    missing: dict[str, str] = {}
    chosen = list(PROBES) if names is None else list(names)
    for name in chosen:
        if name not in PROBES:
            raise ConfigError(f"There is no probe '{name}'.", nearest(name, PROBES))
    for name in chosen:
        try:
            results[name] = PROBES[name].run(model, tokenizer, given)
        except Gap as gap:
            missing[name] = str(gap)
        except DareuError as error:  # such as a prompt that does not fit the context
            missing[name] = f"{PROBES[name].title} could not be measured: {error}"
    return results, missing
