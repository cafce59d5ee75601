"""The jobs of `dareu tune`: what trials share, one trial, one reported run. Each runs as a `workflow.jobs.Job`."""

import shutil
import time
from pathlib import Path
from typing import Any

from rich.markup import escape

from dareu.config import RunConfig
from dareu.errors import TrainingError, reason_of
from dareu.report.figures import show, value
from dareu.runs.manifest import reset_peak_memory
from dareu.tuning.study import record
from dareu.workflow.console import Console
from dareu.workflow.figures import Figures
from dareu.workflow.jobs import LASTING
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

KNOWLEDGE = "knowledge_left_worst"
SHOWN = (
    "tug_of_war", "retrain_similarity", "forget_rouge_l", "retain_rouge_l", "attribution_heldout",
    "broken_text",
)  # fmt: skip
Result = dict[str, Any]


def shared(config: RunConfig, about: Result, result: Result, console: Console) -> None:
    """What all trials or reported runs of a seed share, built once so that none of them waits for another."""
    start = time.perf_counter()
    stages = _stages(config)
    assert stages.retrained is not None  # `retrain=false` is refused
    models = {"original": stages.original, "retrained": stages.retrained}
    for model in models.values():
        model.get()
    stages.attributor.get()
    for which in about["evaluated"]:
        stages.evaluation(models[which], which).get()
    _print(console, about, start)


def trial(config: RunConfig, about: Result, result: Result, console: Console) -> None:
    """One trial. How it ended goes into the journal from here, so that a killed command loses no trial that ended."""
    start = time.perf_counter()
    failed: BaseException | None = None
    try:
        result |= _measure(config, about["objective"])
    except Exception as error:  # it stays in the table, and the other trials continue
        failed = error
    reason = None if failed is None else reason_of(failed)
    outcome = result | {
        "failed": reason,
        "passing": failed is not None and not isinstance(failed, LASTING),
        "seconds": time.perf_counter() - start,
    }
    record(Path(about["journal"]), about["study"], about["number"], outcome)
    _print(console, about, start, result.get("objective"), reason)


def _measure(config: RunConfig, objective: str) -> Result:
    """Unlearn and evaluate what the objective needs; of the model nothing is kept but its figures.

    Raises:
        TrainingError: The objective could not be computed.
    """
    from dareu.models.memory import reset_accelerator_peak

    reset_peak_memory()
    reset_accelerator_peak()
    stages = _stages(config)
    unlearned, retrained = stages.unlearned, stages.retrained
    assert retrained is not None
    lock = stages.context.store.lock("trial", unlearned.key())  # a setting may be tried twice at once
    try:
        kept = unlearned.done()
        artifact = unlearned.get()
        models = {"retrained": retrained, "unlearned": unlearned}
        if objective == KNOWLEDGE:
            models["original"] = stages.original
        figures = Figures.of(
            stages.context, {which: stages.evaluation(m, which).read() for which, m in models.items()}
        )
        if not kept:
            shutil.rmtree(artifact.path, ignore_errors=True)
    finally:
        lock.release()
    results = {"models": figures.summaries, **figures.comparison}
    score = _score(results, objective)
    if score is None:
        reason = figures.missing.get(objective, "it is not a finite number, or no metric can tell")
        raise TrainingError(f"{objective} was not computed: {reason}")
    return {
        "objective": score,
        "figures": {name: value(results, name) for name in SHOWN},
        "unlearn_seconds": artifact.seconds,
        **{key: artifact.extra.get(key) for key in ("steps", "stopped")},
    }


def report_run(config: RunConfig, about: Result, result: Result, console: Console) -> None:
    """A run folder of the chosen setting, whose results say how it was chosen."""
    from dareu.workflow.experiment import train

    start = time.perf_counter()
    try:
        results = train(config, console=Console(silent=True), tuning=about["tuning"])
    except Exception as error:
        _print(console, about, start, failed=reason_of(error))
        raise
    _print(console, about, start, _score(results, about["objective"]))


def _score(results: Result, objective: str) -> float | None:
    """The figure that trials are chosen by, higher is better: of knowledge left −|k| of the worst metric."""
    score = value(results, objective)
    return -score if score is not None and objective == KNOWLEDGE else score


def _stages(config: RunConfig) -> Stages:
    return Stages(prepare(config, console=Console(silent=True)))


def _print(
    console: Console, about: Result, start: float, objective: float | None = None, failed: str | None = None
) -> None:
    """A line for a job that has ended."""
    title, took = escape(about["title"]), f"[dim]{time.perf_counter() - start:.1f} s[/]"
    if failed is not None:
        console.print(f"[red]✗[/] {title}: {escape(failed)} {took}")
    else:
        figure = "" if objective is None else f" → {show(objective)}"
        console.print(f"[green]✓[/] {title}{figure} {took}")
