"""Bars and the tables that say whether they are met. Pure: records in, Markdown out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench_run import Record

from dareu.report.aggregate import Stat
from dareu.report.figures import DASH, show, show_share, value

SLACK = 1e-9  # .05 - .02 is a little more than .03 for a computer
MET, MISSED, UNKNOWN = "met", "**not met**", "**not measured**"


@dataclass(frozen=True)
class Seed:
    """The two timed runs of one seed: `first` from an empty cache, `second` another method on that cache."""

    seed: int
    first: Record
    second: Record


Read = Callable[[Seed], float | None]


@dataclass(frozen=True)
class Bar:
    """One demand on every seed, or with `on_mean` on the mean over seeds."""

    what: str
    limit: float
    read: Read
    at_least: bool = False
    on_mean: bool = False
    form: Callable[[float], str] = show

    def holds(self, number: float) -> bool:
        return number >= self.limit - SLACK if self.at_least else number <= self.limit + SLACK

    def worst(self, numbers: Sequence[float]) -> float:
        return min(numbers) if self.at_least else max(numbers)


def verdict(bar: Bar, numbers: Sequence[float | None]) -> str:
    """Met, missed, or not measured where a number is missing; a bar on every seed says if the mean meets it."""
    kept = [n for n in numbers if n is not None]
    if not kept or len(kept) < len(numbers):
        return UNKNOWN
    if bar.on_mean:
        return MET if bar.holds(statistics.fmean(kept)) else MISSED
    if bar.holds(bar.worst(kept)):
        return MET
    return f"{MISSED} (met on the mean)" if bar.holds(statistics.fmean(kept)) else MISSED


def gap(key: str, signed: bool = False) -> Read:
    """|unlearned − retrained| of a figure of the first run; signed: unlearned − retrained."""

    def read(seed: Seed) -> float | None:
        ours, theirs = value(seed.first.results, key), value(seed.first.results, key, "retrained")
        if ours is None or theirs is None:
            return None
        return ours - theirs if signed else abs(ours - theirs)

    return read


def figure(key: str) -> Read:
    return lambda seed: value(seed.first.results, key)


def time_share(seed: Seed) -> float | None:
    """Seconds of unlearning over seconds of retraining."""
    seconds = seed.first.results.get("seconds") or {}
    unlearn, retrain = seconds.get("unlearn"), seconds.get("retrained")
    return unlearn / retrain if unlearn is not None and retrain else None


def seconds_text(x: float) -> str:
    return f"{x:.1f}"


def whole(x: float) -> str:
    return f"{x:.0f}"


MAIN: tuple[Bar, ...] = (
    Bar("wall seconds from an empty cache", 120, lambda s: s.first.wall_seconds, form=seconds_text),
    Bar("wall seconds of a second method", 40, lambda s: s.second.wall_seconds, form=seconds_text),
    Bar("Tug-of-War, mean", 0.96, figure("tug_of_war"), at_least=True, on_mean=True),
    Bar("Tug-of-War, every seed", 0.92, figure("tug_of_war"), at_least=True),
    Bar("retain ROUGE, distance", 0.03, gap("retain_rouge_l")),
    Bar("test ROUGE, distance", 0.03, gap("test_rouge_l")),
    Bar("empty answers, distance", 0.03, gap("empty")),
    Bar("unfinished answers, distance", 0.03, gap("unfinished")),
    Bar("repetitive answers, distance", 0.03, gap("repetitive")),
    Bar("re-attribution, distance", 0.10, gap("reattribution")),
    Bar("held-out attribution above the retrained model's", 0.05, gap("attribution_heldout", signed=True)),
    Bar("unlearning time over retraining time", 0.25, time_share),
    Bar(
        "peak memory, MB",
        2500,
        lambda s: max(s.first.peak_memory_mb, s.second.peak_memory_mb),
        form=whole,
    ),
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *map(list, rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def bars_table(seeds: Sequence[Seed], bars: Sequence[Bar] = MAIN) -> str:
    """Every bar: its bound, the mean and the worst over seeds, the verdict."""
    rows = []
    for bar in bars:
        numbers = [bar.read(seed) for seed in seeds]
        kept = [n for n in numbers if n is not None]
        bound = ("≥ " if bar.at_least else "≤ ") + bar.form(bar.limit)
        mean, worst = (bar.form(f(kept)) if kept else DASH for f in (statistics.fmean, bar.worst))
        rows.append([bar.what, bound, mean, worst, verdict(bar, numbers)])
    return table(["", "bound", "mean", "worst seed", ""], rows)


PAIRS = {  # unlearned (retrained)
    "forget ROUGE": "forget_rouge_l",
    "retain ROUGE": "retain_rouge_l",
    "test ROUGE": "test_rouge_l",
    "attribution": "attribution",
    "held-out": "attribution_heldout",
    "re-attribution": "reattribution",
}
HEALTH = {"empty": "empty", "unfinished": "unfinished", "repetitive": "repetitive"}


def seeds_table(seeds: Sequence[Seed]) -> str:
    """One row a seed; in brackets the retrained model."""
    rows = []
    for seed in seeds:
        run = seed.first.results
        beside = [f"{show(value(run, key))} ({show(value(run, key, 'retrained'))})" for key in PAIRS.values()]
        health = [f"{_share(run, key)} ({_share(run, key, 'retrained')})" for key in HEALTH.values()]
        took = run.get("seconds") or {}
        rows.append(
            [
                str(seed.seed),
                show(value(run, "tug_of_war")),
                show(value(run, "retrain_similarity")),
                *beside,
                *health,
                "/".join(DASH if took.get(k) is None else f"{took[k]:.1f}" for k in ("unlearn", "retrained")),
                f"{seed.first.wall_seconds:.1f}, {seed.second.wall_seconds:.1f}",
                f"{max(seed.first.peak_memory_mb, seed.second.peak_memory_mb):.0f}",
            ]
        )
    head = ["seed", "Tug-of-War", "similarity", *PAIRS, *HEALTH, "unlearn/retrain s", "wall s", "peak MB"]
    failed = [
        f"- seed {s.seed}: {r.name}: {r.failure}\n" for s in seeds for r in (s.first, s.second) if r.failure
    ]
    return table(head, rows) + ("\nFailed:\n\n" + "".join(failed) if failed else "")


def _share(run: Mapping[str, object], key: str, model: str = "unlearned") -> str:
    number = value(run, key, model)
    return DASH if number is None else show_share(number)


def settings_table(groups: Mapping[str, Sequence[Record]], limit: float) -> str:
    """One row a setting: Tug-of-War (mean ± sd over its runs), its worst run, retrain similarity, the verdict."""
    rows = []
    for name, records in groups.items():
        tugs = [value(r.results, "tug_of_war") for r in records]
        kept = [t for t in tugs if t is not None]
        mean, similar = Stat.of(tugs), Stat.of(value(r.results, "retrain_similarity") for r in records)
        bar = Bar("Tug-of-War", limit, lambda s: None, at_least=True, on_mean=True)
        rows.append(
            [
                name,
                str(len(kept)) + (f" of {len(tugs)}" if len(kept) < len(tugs) else ""),
                mean.text() if mean else DASH,
                show(min(kept, default=None)),
                similar.text() if similar else DASH,
                verdict(bar, tugs),
            ]
        )
    head = ["setting", "runs", f"Tug-of-War (mean ≥ {show(limit)})", "worst run", "retrain similarity", ""]
    return table(head, rows)
