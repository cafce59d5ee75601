"""The same number of trials for every method, on a bench that the reported figures never touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

from bench_bars import table
from bench_run import Record

from dareu.report.figures import DASH, show, value

# Another corpus and another seed than any reported run.
VALIDATION = ("seed=51", "data.seed=17")
# Every method's grid, of one size. Keys that a grid does not name stay at the method's defaults.
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "dareu": {"method.optim.lr": (5e-4, 7e-4, 1e-3, 1.4e-3), "method.data_epochs": (3, 5)},
    "finetune": {"method.optim.lr": (3e-4, 1e-3, 2e-3, 4e-3), "method.optim.epochs": (3, 6)},
    "gradient_ascent": {"method.optim.lr": (5e-5, 1e-4, 2e-4, 3e-4), "method.optim.epochs": (3, 5)},
    "grad_diff": {"method.optim.lr": (1e-4, 2e-4, 3e-4, 5e-4), "method.retain_weight": (1, 4)},
    "npo": {"method.optim.lr": (5e-5, 1e-4, 2e-4, 3e-4), "method.optim.epochs": (5, 10)},
}
Setting = tuple[str, ...]


def settings(method: str, trials: int) -> list[Setting]:
    """The first `trials` settings of a method's grid, as overrides."""
    grid = GRIDS[method]
    chosen = (
        tuple(f"{key}={x:g}" for key, x in zip(grid, point, strict=True)) for point in product(*grid.values())
    )
    return list(islice(chosen, trials))


def choose(trials: Mapping[Setting, Sequence[Record]], by: str) -> Setting | None:
    """The setting with the highest mean of figure `by`, the first of equals; None where no trial has the figure.

    A setting of which any run failed, or lacks the figure, is not chosen.
    """
    best: tuple[float, Setting] | None = None
    for setting, records in trials.items():
        numbers = [value(r.results, by) for r in records]
        kept = [n for n in numbers if n is not None]
        if not kept or len(kept) < len(numbers):
            continue
        mean = sum(kept) / len(kept)
        if best is None or mean > best[0]:
            best = (mean, setting)
    return best[1] if best else None


def short(setting: Setting) -> str:
    return ", ".join(part.removeprefix("method.").removeprefix("optim.") for part in setting)


def chosen_table(chosen: Mapping[str, Setting | None]) -> str:
    return table(
        ["method", "setting chosen"],
        [[m, short(s) if s is not None else "none: all trials failed"] for m, s in chosen.items()],
    )


def trials_table(trials: Mapping[str, Mapping[Setting, Sequence[Record]]], by: str) -> str:
    """Every trial, the failed ones too; the chosen ones are bold."""
    rows = []
    for method, tried in trials.items():
        best = choose(tried, by)
        for setting, records in tried.items():
            for record in records:
                run, bold = record.results, "**" if setting == best else ""
                numbers = [
                    DASH if record.failure else show(value(run, key))
                    for key in ("tug_of_war", "retrain_similarity", "forget_rouge_l", "retain_rouge_l")
                ]
                name = f"{bold}{method}, {short(setting)}{bold}"
                rows.append([name, *numbers, record.failure or ""])
    return table(
        ["trial", "Tug-of-War", "retrain similarity", "forget ROUGE", "retain ROUGE", "failure"], rows
    )
