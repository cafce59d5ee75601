"""The figures of a run as columns: where each lies in `results.json`, which way is better, and how it is written.

What a metric is stands in `dareu.evaluation.metrics.registry`; here is which of them a table shows, and in what order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dareu.config.tables import read_table
from dareu.evaluation.metrics.base import ANY, SETS, Direction, Metric, number
from dareu.evaluation.metrics.registry import registry
from dareu.evaluation.results import MODELS as MODELS

DASH = "–"


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
    note: str
    better: Direction = "lower"
    of_model: bool = True


def _figure(metric: Metric, of: str) -> Figure:
    """The column of a metric of one model on the set `of`."""
    plain = metric.sets != ANY
    key = metric.name if plain else f"{of}_{metric.name}"
    title = metric.title if plain else f"{of.capitalize()} {metric.title}"
    short = metric.short if plain else f"{of}\n{metric.short}"
    note = f"{of.capitalize()} set: {metric.note}" if metric.sets == ANY else metric.note
    return Figure(key, metric.path(of), title, short, note, metric.better)


def _score(metric: Metric) -> Figure:
    """The column of a figure that compares the unlearned model with the retrained one."""
    if metric.name == "forget_quality":  # p itself is 0 to three digits in most rows
        note, path = "log10 of p" + metric.note.removeprefix("p"), (metric.name, "log10_p")
        return Figure(metric.name, path, "Forget quality, log10 p", "log10 p", note, metric.better, False)
    return Figure(metric.name, (metric.name,), metric.title, metric.short, metric.note, metric.better, False)


_METRICS = registry()
BROKEN = ("empty", "unfinished", "repetitive")
# The columns of a run's table: ROUGE of each set, then what is read of forget answers.
FIGURES = (
    *(_figure(_METRICS["rouge_l"], of) for of in SETS),
    *(
        _figure(_METRICS[name], "forget")
        for name in ("attribution", "attribution_heldout", "reattribution", *BROKEN)
    ),
)
# Every other figure of a model that a table may sort by or show.
MORE = tuple(
    figure
    for metric in _METRICS.values()
    if metric.level in ("sample", "set")
    for figure in (_figure(metric, of) for of in (SETS if metric.sets == ANY else ("forget",)))
    if figure.key not in {f.key for f in FIGURES}
)
OTHERS = {
    key: Figure(key, **row | {"path": tuple(row["path"])})
    for key, row in read_table("dareu.report", "figures.yaml").items()
}
WORST, LEFT = OTHERS["broken_text"], OTHERS["knowledge_left_worst"]
SCORES = (
    LEFT,
    *(_score(_METRICS[name]) for name in ("tug_of_war", "tug_of_war_without_test", "retrain_similarity")),
    OTHERS["seconds"],
)
DAMAGE = (OTHERS["damage_retain"], OTHERS["damage_test"])
_BESIDE = ("forget_probability", "forget_truth_ratio", "truth_ratio_log", "forget_exact", "broken")
# Columns that comparisons have beside those of a run's own table.
COMPARED = (
    *DAMAGE,
    *(f for f in MORE if f.key in _BESIDE),
    _score(_METRICS["forget_quality"]),
)
COSTS = (OTHERS["time_share"], OTHERS["peak_memory"])  # what forgetting cost, beside its seconds
BY_KEY = {f.key: f for f in (*MORE, *FIGURES, WORST, *COMPARED, *SCORES, *COSTS)}


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
    if figure is LEFT:
        k = number(dig(results, *figure.path))
        return None if k is None else abs(k)
    if figure in DAMAGE:
        at = {"unlearned": ("value",), "original": ("original", "value")}.get(model)
        return None if at is None else number(dig(results, *figure.path, *at))
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
    """23%; -4%."""
    return f"{round(100 * x):d}%"


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


def missing_reasons(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what became of them, figures, why); figures that share a reason are joined, those of all models under one name.

    What became of them: "Not computed", or "Computed without some of the samples" where the others give a figure.
    """
    models = [model for model in MODELS if has_model(results, model)]
    none, some = gaps(results)
    rows = []
    for what, reasons in (("Not computed", none), ("Computed without some of the samples", some)):
        by_reason: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            by_reason.setdefault(reason, []).append(name)
        rows += [(what, ", ".join(_of_all_models(names, models)), why) for why, names in by_reason.items()]
    return rows


def gaps(results: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Reasons by path: of figures that are not there, and of those that are there, but of a part of the samples."""
    none: dict[str, str] = {}
    some: dict[str, str] = {}
    for name, reason in (results.get("missing") or {}).items():
        there = number(dig(results, "models", *str(name).split("."))) is not None
        (some if there else none)[str(name)] = str(reason)
    return none, some


def _of_all_models(names: list[str], models: list[str]) -> list[str]:
    """`names` with "forget.depth" in place of "original.forget.depth" and the like, where each model has it."""
    shown: list[str] = []
    for name in names:
        model, _, figure = name.partition(".")
        shared = model in models and figure and all(f"{one}.{figure}" in names for one in models)
        shown.append(figure if shared and len(models) > 1 else name)
    return list(dict.fromkeys(shown))
