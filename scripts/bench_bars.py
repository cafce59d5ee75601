"""Tables of runs: their figures over seeds, and by seed. Pure: records in, Markdown out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench_run import Record

from dareu.report.aggregate import Stat
from dareu.report.figures import DASH, show, show_share, value


@dataclass(frozen=True)
class Seed:
    """The two timed runs of one seed: `first` from an empty cache, `second` another method on that cache."""

    seed: int
    first: Record
    second: Record


Read = Callable[[Seed], float | None]


@dataclass(frozen=True)
class Bar:
    """One figure of every seed; with `high` more is better, and the worst seed has the least."""

    what: str
    read: Read
    high: bool = False
    form: Callable[[float], str] = show

    def worst(self, numbers: Sequence[float]) -> float:
        return min(numbers) if self.high else max(numbers)


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
    Bar("wall seconds from an empty cache", lambda s: s.first.wall_seconds, form=seconds_text),
    Bar("wall seconds of a second method", lambda s: s.second.wall_seconds, form=seconds_text),
    Bar("Tug-of-War", figure("tug_of_war"), high=True),
    Bar("retain ROUGE, distance", gap("retain_rouge_l")),
    Bar("test ROUGE, distance", gap("test_rouge_l")),
    Bar("empty answers, distance", gap("empty")),
    Bar("unfinished answers, distance", gap("unfinished")),
    Bar("repetitive answers, distance", gap("repetitive")),
    Bar("re-attribution, distance", gap("reattribution")),
    Bar("held-out attribution above the retrained model's", gap("attribution_heldout", signed=True)),
    Bar("unlearning time over retraining time", time_share),
    Bar("peak memory, MB", lambda s: max(s.first.peak_memory_mb, s.second.peak_memory_mb), form=whole),
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *map(list, rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def bars_table(seeds: Sequence[Seed], bars: Sequence[Bar] = MAIN) -> str:
    """Every figure: the mean and the worst over seeds; a dash where no seed has it."""
    rows = []
    for bar in bars:
        numbers = [bar.read(seed) for seed in seeds]
        kept = [n for n in numbers if n is not None]
        mean, worst = (bar.form(f(kept)) if kept else DASH for f in (statistics.fmean, bar.worst))
        rows.append([bar.what, mean, worst])
    return table(["", "mean", "worst seed"], rows)


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


def settings_table(groups: Mapping[str, Sequence[Record]]) -> str:
    """One row a setting: Tug-of-War (mean ± sd over its runs), its worst run, retrain similarity."""
    rows = []
    for name, records in groups.items():
        tugs = [value(r.results, "tug_of_war") for r in records]
        kept = [t for t in tugs if t is not None]
        mean, similar = Stat.of(tugs), Stat.of(value(r.results, "retrain_similarity") for r in records)
        rows.append(
            [
                name,
                str(len(kept)) + (f" of {len(tugs)}" if len(kept) < len(tugs) else ""),
                mean.text() if mean else DASH,
                show(min(kept, default=None)),
                similar.text() if similar else DASH,
            ]
        )
    return table(["setting", "runs", "Tug-of-War", "worst run", "retrain similarity"], rows)
