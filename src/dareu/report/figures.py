"""The figures of a run: where each lies in `results.json`, which way is better, and how it is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MODELS = ("original", "retrained", "unlearned")
SETS = ("forget", "retain", "test")
DASH = "–"

Better = Literal["retrained", "up", "down"]


@dataclass(frozen=True)
class Figure:
    """One column.

    `path` starts below `models.<model>` where `of_model`, else at the top. `better` says what a
    good value is: close to the retrained model's, high, or low. `note` is its definition in one sentence.
    """

    key: str
    path: tuple[str, ...]
    title: str
    short: str
    better: Better
    note: str
    of_model: bool = True


FIGURES = (
    Figure(
        "forget_rouge_l",
        ("forget", "rouge_l"),
        "Forget ROUGE",
        "forget\nROUGE",
        "retrained",
        "ROUGE-L recall of greedy answers to questions about the forgotten owners: "
        "how much of the reference comes back.",
    ),
    Figure(
        "retain_rouge_l",
        ("retain", "rouge_l"),
        "Retain ROUGE",
        "retain\nROUGE",
        "retrained",
        "The same on the owners who stay.",
    ),
    Figure(
        "test_rouge_l",
        ("test", "rouge_l"),
        "Test ROUGE",
        "test\nROUGE",
        "retrained",
        "The same on held-out questions that belong to no owner.",
    ),
    Figure(
        "attribution",
        ("forget", "attribution"),
        "Attribution",
        "attri-\nbution",
        "retrained",
        "Share of an answer that the attribution classifier ascribes to the forgotten owners. "
        "DareU trains against this one.",
    ),
    Figure(
        "attribution_heldout",
        ("forget", "attribution_heldout"),
        "Held-out attribution",
        "held-\nout",
        "retrained",
        "The same by an attributor that no method trains against.",
    ),
    Figure(
        "reattribution",
        ("forget", "reattribution"),
        "Re-attribution",
        "re-\nattr.",
        "retrained",
        "Share of forget answers ascribed with high confidence to an owner that the question is not about.",
    ),
    Figure(
        "empty",
        ("text_health", "empty"),
        "Empty",
        "empty",
        "retrained",
        "Share of forget answers without a word.",
    ),
    Figure(
        "unfinished",
        ("text_health", "unfinished"),
        "Unfinished",
        "unfin-\nished",
        "retrained",
        "Share of forget answers that reach the length limit without an end.",
    ),
    Figure(
        "repetitive",
        ("text_health", "repetitive"),
        "Repetitive",
        "repet-\nitive",
        "retrained",
        "Share of forget answers with a 4-gram three times or more, or a word three times in a row.",
    ),
)
BROKEN = ("empty", "unfinished", "repetitive")
# For narrow tables: the largest of the three shares, which may overlap.
WORST = Figure(
    "broken",
    ("text_health",),
    "Broken text",
    "bro-\nken",
    "retrained",
    "The largest of the empty, the unfinished and the repetitive share of forget answers.",
)

SCORES = (
    Figure(
        "tug_of_war",
        ("tug_of_war",),
        "Tug-of-War",
        "ToW",
        "up",
        "Product over forget, retain and test of 1 − |ROUGE difference to the retrained model|; 1 is best "
        "(Zhao et al. 2024). It does not see broken text.",
        False,
    ),
    Figure(
        "tug_of_war_without_test",
        ("tug_of_war_without_test",),
        "Tug-of-War without test",
        "ToW*",
        "up",
        "Tug-of-War over forget and retain only.",
        False,
    ),
    Figure(
        "retrain_similarity",
        ("retrain_similarity",),
        "Retrain similarity",
        "simil-\narity",
        "up",
        "Tug-of-War with three more factors: held-out attribution, repetitive and empty share. 1 is best.",
        False,
    ),
    Figure(
        "seconds", ("seconds", "unlearn"), "Unlearning seconds", "s", "down", "Seconds of unlearning.", False
    ),
)
# What forgetting cost, beside its seconds.
COSTS = (
    Figure(
        "time_share",
        ("seconds",),
        "Unlearning over retraining time",
        "of re-\ntrain",
        "down",
        "Seconds of unlearning over seconds of retraining.",
        False,
    ),
    Figure(
        "peak_memory",
        ("peak_memory_mb",),
        "Peak memory, MB",
        "MB",
        "down",
        "The most memory that the process of the run held, models of the evaluation included.",
        False,
    ),
)
BY_KEY = {f.key: f for f in (*FIGURES, WORST, *SCORES, *COSTS)}


def number(value: Any) -> float | None:
    """`value` as a finite float; None for what is missing, NaN, infinite or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def dig(tree: Any, *path: str) -> Any:
    """The entry under nested keys, or None where one of them is missing."""
    for key in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def value(results: Mapping[str, Any], key: str, model: str = "unlearned") -> float | None:
    """Figure `key` of `results`; `model` matters to figures of a model only."""
    figure = BY_KEY[key]
    if figure is WORST:
        shares = [s for s in (value(results, part, model) for part in BROKEN) if s is not None]
        return max(shares, default=None)
    if key == "time_share":
        unlearn, retrained = (number(dig(results, "seconds", part)) for part in ("unlearn", "retrained"))
        return None if unlearn is None or not retrained else unlearn / retrained
    path = ("models", model, *figure.path) if figure.of_model else figure.path
    return number(dig(results, *path))


def has_model(results: Mapping[str, Any], model: str) -> bool:
    return bool(dig(results, "models", model))


def show(x: Any, digits: int = 3) -> str:
    """.552, 1.000, -.250; a dash for what is missing."""
    x = number(x)
    if x is None:
        return DASH
    text = f"{x:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def show_any(x: Any) -> str:
    """A number of any size, in about three significant digits."""
    x = number(x)
    if x is None:
        return DASH
    if x and not 1e-3 <= abs(x) < 1e4:
        return f"{x:.1e}"
    return show(x) if abs(x) < 10 else f"{x:.0f}" if abs(x) >= 1000 else f"{x:.1f}"


def show_share(x: float) -> str:
    return f"{100 * x:.0f}%"


def show_seconds(x: Any) -> str:
    """4.0 s, 118 s, 7 min 51 s, 2 h 5 min; a dash for what is missing."""
    x = number(x)
    if x is None:
        return DASH
    if x < 100:
        return f"{x:.1f} s"
    whole = round(x)
    if whole < 180:
        return f"{whole} s"
    minutes, seconds = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def missing_reasons(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what could not be computed, why); names that share a reason are joined."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in (results.get("missing") or {}).items():
        by_reason.setdefault(str(reason), []).append(str(name))
    return [(", ".join(names), reason) for reason, names in by_reason.items()]
