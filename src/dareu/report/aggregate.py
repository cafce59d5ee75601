"""Mean ± sd over seeds of runs that share everything else, and which of them are best."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from dareu.report.figures import (
    BY_KEY,
    COMPARED,
    COSTS,
    FIGURES,
    SCORES,
    WORST,
    Figure,
    has_model,
    show,
    value,
)
from dareu.report.loading import differing

Run = Mapping[str, Any]
T = TypeVar("T")
COLUMNS: tuple[Figure, ...] = (*FIGURES, WORST, *COMPARED, *SCORES, *COSTS)


@dataclass(frozen=True)
class Stat:
    """Mean, sample standard deviation (n − 1; None below two values) and number of the values that exist."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Stat | None:
        kept = [v for v in values if v is not None]
        if not kept:
            return None
        return cls(statistics.fmean(kept), statistics.stdev(kept) if len(kept) > 1 else None, len(kept))

    def text(self, joint: str = " ± ") -> str:
        """.552 ± .012, or .552 alone."""
        return show(self.mean) if self.sd is None else f"{show(self.mean)}{joint}{show(self.sd)}"


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    `stats` has a `Stat` or None for each key of `COLUMNS`; `gaps` the same of |unlearned − retrained| per
    run; `best` the keys in which the row is best, or within one sd of the best.
    """

    label: str
    model: str
    n: int
    stats: dict[str, Stat | None]
    gaps: dict[str, Stat | None] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    seeds: tuple[Any, ...] = ()
    data_keys: tuple[str, ...] = ()
    best: frozenset[str] = frozenset()


def aggregate(runs: Sequence[Run], sort: str = "retrain_similarity") -> list[Row]:
    """Rows of the original and the retrained models, then one row a method and setting.

    Runs are one row if they differ in nothing but the seed (and what cannot change a figure). Labels name
    what tells rows apart: settings of the method among rows of that method, everything else among all rows.
    A model that several runs share, such as the original, counts once a seed, and so does a run that was made with and
    without a retrained model. Failed runs are counted apart from `n`. Methods stand in the order of the figure `sort`,
    the best first (of one that should be close to the retrained model: the closest), those without it last. Where some
    runs were tuned, the others say that they were
    not. Runs on other data stand in a block of their own, with their own best ones and their data's key in the label.
    """
    keys = list(dict.fromkeys(str(r["data_key"]) for r in runs if r.get("data_key")))
    if len(keys) > 1:
        blocks = [[r for r in runs if str(r.get("data_key") or keys[0]) == key] for key in keys]
        return [
            replace(row, label=f"{row.label}, data_key={key[:8]}")
            for key, block in zip(keys, blocks, strict=True)
            for row in aggregate(block, sort)
        ]
    contexts = _group(runs, lambda run: _frozen(run["context"]))
    telling = differing([group[0]["context"] for group in contexts])
    rows = []
    for group in contexts:
        done = [run for run in group if "failure" not in run]
        for model in ("original", "retrained"):
            having = _complete([r for r in done if has_model(r, model)])
            # Runs of one seed share it where its figures are the same.
            once = {
                (r.get("seed"), json.dumps(r["models"][model], sort_keys=True)): r for r in reversed(having)
            }
            if once:
                rows.append(_model_row(model, list(once.values()), _suffix(group[0]["context"], telling)))
    methods = []
    some_tuned = any(r.get("tuning") for r in runs)
    for group in _group(runs, lambda run: (run["method"], _frozen(run["settings"]), _frozen(run["context"]))):
        alike = [r["settings"] for r in runs if r["method"] == group[0]["method"]]
        label = str(group[0]["method"]) + _suffix(group[0]["settings"], differing(alike))
        label += _suffix(group[0]["context"], telling)
        plain = some_tuned and any("failure" not in r and not r.get("tuning") for r in group)
        untuned = " (untuned)" if plain else ""
        methods.append(_method_row(label + untuned, group))
    methods.sort(key=lambda row: _place(row, sort))
    return rows + mark_best(methods)


def _place(row: Row, sort: str) -> float:
    """Where a row stands: the lower, the better; infinity without the figure."""
    better = BY_KEY[sort].better
    stat = (row.gaps if better == "as retrained" else row.stats).get(sort)
    return math.inf if stat is None else -stat.mean if better == "higher" else stat.mean


def _group(items: Sequence[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _frozen(tree: Mapping[str, str]) -> Hashable:
    return tuple(sorted(tree.items()))


def _suffix(tree: Mapping[str, str], keys: Sequence[str]) -> str:
    return "".join(f", {k}={tree[k]}" for k in keys if k in tree)


def _about(runs: Sequence[Run]) -> dict[str, Any]:
    keys = tuple(sorted({str(r["data_key"]) for r in runs if r.get("data_key")}))
    return {"seeds": tuple(sorted({r.get("seed") for r in runs}, key=str)), "data_keys": keys}


def _model_row(model: str, runs: Sequence[Run], suffix: str) -> Row:
    stats = {f.key: Stat.of(value(r, f.key, model) for r in runs) if f.of_model else None for f in COLUMNS}
    stats["seconds"] = Stat.of(_seconds(r, model) for r in runs) if model == "retrained" else None
    return Row(model + suffix, model, len(runs), stats, **_about(runs))


def _seconds(run: Run, stage: str) -> float | None:
    return value({"seconds": {"unlearn": (run.get("seconds") or {}).get(stage)}}, "seconds")


def _method_row(label: str, group: Sequence[Run]) -> Row:
    done = _complete([r for r in group if "failure" not in r])
    return Row(
        label=label,
        model="unlearned",
        n=len(done),
        stats={f.key: Stat.of(value(r, f.key) for r in done) for f in COLUMNS},
        gaps={f.key: Stat.of(_gap(r, f.key) for r in done) for f in COLUMNS if f.better == "as retrained"},
        failures=tuple(str(r["failure"]) for r in group if "failure" in r),
        **_about(group),
    )


def _complete(runs: Sequence[Run]) -> list[Run]:
    """The runs, without those that lack a retrained model where the same run with one stands beside them."""
    seeds = [r.get("seed") for r in runs if has_model(r, "retrained")]
    return [r for r in runs if has_model(r, "retrained") or r.get("seed") not in seeds]


def _gap(run: Run, key: str) -> float | None:
    ours, theirs = value(run, key), value(run, key, "retrained")
    return None if ours is None or theirs is None else abs(ours - theirs)


def mark_best(rows: Sequence[Row]) -> list[Row]:
    """Rows with `best` filled in; a lone row is not called best.

    Where close to the retrained model is good, gaps are compared; one sd is the best row's own.
    """
    best: dict[int, set[str]] = {i: set() for i in range(len(rows))}
    for figure in COLUMNS:
        sign = -1 if figure.better == "higher" else 1
        table = [(row.gaps if figure.better == "as retrained" else row.stats).get(figure.key) for row in rows]
        ranked = [(sign * stat.mean, stat.sd or 0.0, i) for i, stat in enumerate(table) if stat is not None]
        if len(ranked) < 2:
            continue
        lowest, sd, _ = min(ranked)
        for mean, _, i in ranked:
            if mean <= lowest + sd or math.isclose(mean, lowest, abs_tol=1e-9):
                best[i].add(figure.key)
    return [replace(row, best=frozenset(best[i])) for i, row in enumerate(rows)]


def remarks(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    """What a reader must know before comparing: other data, other seeds, few seeds, failures."""
    lines = []
    keys = Counter(str(r["data_key"]) for r in runs if r.get("data_key"))
    if len(keys) > 1:
        shown = ", ".join(f"{k[:12]} ({n} runs)" for k, n in keys.most_common())
        lines.append(f"Warning: these runs used different data and cannot be compared: data_key {shown}.")
    methods = [row for row in rows if row.model == "unlearned"]
    if len({row.seeds for row in methods}) > 1:
        lines.append("Warning: not every row has the same seeds.")
    if any(0 < row.n < 3 for row in methods):
        lines.append("Fewer than three seeds in some rows: differences may be chance.")
    if any("failure" not in r and not has_model(r, "retrained") for r in runs):
        lines.append("Some runs have no retrained model, so no Tug-of-War and no retrain similarity.")
    lines += [f"Failed: {row.label}: {reason}" for row in methods for reason in dict.fromkeys(row.failures)]
    return lines
