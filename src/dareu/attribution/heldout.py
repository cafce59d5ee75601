"""Calibrating the causal classifier on held-out responses, and judging it or the word attributor there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import softmax

from dareu.attribution.base import Attributor, class_count
from dareu.attribution.causal import CausalAttributor
from dareu.attribution.lexical import LexicalAttributor
from dareu.attribution.score import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    owner_index,
)
from dareu.data.corpus import Sample
from dareu.data.split import holdout

# Held-out responses that are read: as many as this product of responses and classes allows, and never fewer than
# `LEAST`. More would make calibration cost responses × owners.
MOST_SCORES = 200_000
LEAST = 200
MOST_LOGITS = 4_000_000  # that the temperature is fitted on


def heldout_report(
    attributor: CausalAttributor,
    held: Sequence[Sample],
    original_responses: Sequence[tuple[str, str]] | None = None,
    warn_below: float = 0.0,
    masked: Sequence[Sample] = (),
) -> dict[str, Any]:
    """Set the attributor's temperature from held-out responses, and measure its accuracy there.

    Keys: `accuracy_heldout` (whole responses); `accuracy_heldout_blinded` (the same of the `masked` ones);
    `accuracy_heldout_by_quarter` (prefixes whose last token lies in the 1st … 4th quarter of their response: the
    whole response in the 4th); `temperature`; `ece_before` and `ece_after` it, `nll_before` and `nll_after` it
    (nats), all four over every prefix, since rewards read every prefix, and over both kinds of response;
    `accuracy_original_responses`; `n_heldout` (those read, see `few`); `warnings`. None where there is nothing to
    compute from. The temperature minimises the NLL on these very rows, so `nll_after` is no higher than `nll_before`;
    the ECE is not what it minimises, and may rise.
    """
    held, masked = few(held, class_count(attributor)), few(masked, class_count(attributor))
    kept = _scored(attributor, held)
    report = _nothing_measured(len(held))
    if kept:
        every, gold = _joined(kept)
        quarter = np.concatenate([quarters(len(rows)) for rows, _ in kept])
        right = np.concatenate([rows.argmax(axis=1) == label for rows, label in kept])
        report["accuracy_heldout"] = _last_right(kept)
        report["accuracy_heldout_by_quarter"] = [
            float(right[quarter == q].mean()) if (quarter == q).any() else None for q in range(4)
        ]
        without_names = _scored(attributor, masked)
        if without_names:
            report["accuracy_heldout_blinded"] = _last_right(without_names)
            every, gold = _joined([*kept, *without_names])
        attributor.temperature = fit_temperature(every, gold)
        for when, temperature in (("before", 1.0), ("after", attributor.temperature)):
            scaled = every / temperature
            report[f"ece_{when}"] = expected_calibration_error(softmax(scaled, axis=1), gold)
            report[f"nll_{when}"] = negative_log_likelihood(scaled, gold)
    else:
        nothing = "No response was held out: the attributor is neither calibrated nor evaluated."
        report["warnings"].append(nothing)
    report["temperature"] = attributor.temperature
    if original_responses:
        report["accuracy_original_responses"] = _accuracy(attributor, original_responses)
    report["warnings"] += _low(report, warn_below)
    return report


def _nothing_measured(held: int) -> dict[str, Any]:
    """A report whose figures are None."""
    names = ["accuracy_heldout", "accuracy_heldout_blinded", "accuracy_original_responses"]
    names += ["ece_before", "ece_after", "nll_before", "nll_after"]
    return {
        "n_heldout": held,
        "warnings": [],
        "accuracy_heldout_by_quarter": [None] * 4,
        **dict.fromkeys(names),
    }


def few(samples: Sequence[Sample], classes: int) -> Sequence[Sample]:
    """The samples, or some of them, drawn evenly, where `MOST_SCORES` allows no more."""
    most = max(LEAST, MOST_SCORES // classes)
    return [samples[i * len(samples) // most] for i in range(most)] if len(samples) > most else samples


Scored = list[tuple[np.ndarray, int]]  # logits at every token of a response, and its owner's column


def _scored(attributor: CausalAttributor, samples: Sequence[Sample]) -> Scored:
    logits = [rows.numpy() for rows in attributor.position_logits([sample.response for sample in samples])]
    labels = owner_index(attributor.owners, [str(sample.owner) for sample in samples])
    return [(rows, label) for rows, label in zip(logits, labels, strict=True) if len(rows)]


def _joined(scored: Scored) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and labels (N,) of every position, or of some, drawn evenly, where that were too many."""
    every = np.concatenate([rows for rows, _ in scored])
    labels = np.concatenate([np.full(len(rows), label) for rows, label in scored])
    step = -(-every.size // MOST_LOGITS)
    return every[::step].astype(float), labels[::step]


def _last_right(scored: Scored) -> float:
    """Share of whole responses whose top class is their owner."""
    return float(np.mean([rows[-1].argmax() == label for rows, label in scored]))


def unseen_texts(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(what to learn from, what to measure on): texts of the same owners, none of them learnt.

    Where samples have a paraphrased response, these are the test (the same facts in other words) and nothing has
    to be kept from learning; else a `share` of the samples is held out.
    """
    rephrased = [replace(s, response=s.paraphrased_response) for s in samples if s.paraphrased_response]
    train, held = (tuple(samples), tuple(rephrased)) if rephrased else holdout(samples, share, seed)
    learnt = {(sample.owner, sample.response) for sample in train}  # memorised: says nothing
    return train, tuple(s for s in held if (s.owner, s.response) not in learnt)


def lexical_report(
    samples: Sequence[Sample],
    share: float,
    seed: int,
    original_responses: Sequence[tuple[str, str]] | None = None,
    warn_below: float = 0.0,
) -> dict[str, Any]:
    """The keys of `heldout_report` for the word attributor; None for what is said of prefixes alone.

    It learns from all `samples`, so held-out figures are those of one that did not see the held-out `share`.
    It has no temperature: `ece_after` is `ece_before`, over whole responses.
    """
    train, held = unseen_texts(samples, share, seed)
    report = _nothing_measured(len(held)) | {"n_train": len(samples), "temperature": 1.0}
    if held:
        probe = LexicalAttributor.fit(train, "word", seed)
        probs = probe.probabilities([sample.response for sample in held])
        gold = np.array(owner_index(probe.owners, [str(sample.owner) for sample in held]))
        report["accuracy_heldout"] = float((probs.argmax(axis=1) == gold).mean())
        report["ece_before"] = report["ece_after"] = expected_calibration_error(probs, gold)
    if original_responses:
        known = LexicalAttributor.fit(samples, "word", seed)
        report["accuracy_original_responses"] = _accuracy(known, original_responses)
    report["warnings"] += _low(report, warn_below)
    return report


def own_report(
    attributor: Attributor, original_responses: Sequence[tuple[str, str]], warn_below: float = 0.0
) -> dict[str, Any]:
    """The keys of `heldout_report` for an attributor of another kind; None for what would need another fit."""
    report = _nothing_measured(0) | {"accuracy_original_responses": _accuracy(attributor, original_responses)}
    return report | {"warnings": _low(report, warn_below)}


def quarters(length: int) -> np.ndarray:
    """Quarter (0 to 3) of a response of `length` tokens in which each of them ends, shape (length,)."""
    ends: np.ndarray = np.arange(1, length + 1)
    return (4 * ends - 1) // length


def _accuracy(attributor: Attributor, responses: Sequence[tuple[str, str]]) -> float:
    """Share of (owner, text) whose top class is the owner. An empty text is background: never right."""
    truth = owner_index(attributor.owners, [owner for owner, _ in responses])
    guess = attributor.probabilities([text for _, text in responses]).argmax(axis=1)
    written = np.array([bool(text.strip()) for _, text in responses])
    return float(((guess == np.array(truth)) & written).mean())


def _low(report: dict[str, Any], warn_below: float) -> list[str]:
    names = {
        "accuracy_heldout": "held-out responses",
        "accuracy_original_responses": "the original model's own responses",
    }
    return [
        f"The attributor names the right owner for only {report[key]:.0%} of {what} (below {warn_below:.0%})."
        for key, what in names.items()
        if report[key] is not None and report[key] < warn_below
    ]
