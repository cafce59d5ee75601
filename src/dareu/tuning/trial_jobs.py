"""The jobs of `dareu tune`: what trials share, one trial, one reported run. Each leaves a note of how it ended."""

from __future__ import annotations

import shutil
import time
import traceback
from pathlib import Path
from typing import Any

from dareu.config import RunConfig, parse
from dareu.errors import DareuError, RunError
from dareu.evaluation.results import FILE, Results
from dareu.report.figures import value
from dareu.runs.files import read_json, write_json
from dareu.runs.manifest import reset_peak_memory
from dareu.workflow.console import Talk
from dareu.workflow.evaluate import judge
from dareu.workflow.library_settings import quiet
from dareu.workflow.stages import Bench
from dareu.workflow.unlearn import unlearn, unlearn_key

SHOWN = (
    "tug_of_war",
    "retrain_similarity",
    "forget_rouge_l",
    "retain_rouge_l",
    "attribution_heldout",
    "broken_text",
)


def job(tree: Any) -> None:
    """One job, as a launcher of Hydra calls it. `tree.job` is a file with its order: `kind`, `note` (the file to
    write at the end), `about` (what that kind needs).
    """
    from omegaconf import OmegaConf

    from dareu.models.accelerator import reset_accelerator_peak

    container: Any = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    asked = read_json(container.pop("job"))
    start = time.perf_counter()
    note: dict[str, Any] = {"failed": None, "exit_code": 0}
    try:
        quiet()
        reset_peak_memory()
        reset_accelerator_peak()
        note |= KINDS[asked["kind"]](parse(container), asked["about"])
    except DareuError as error:
        note |= {"failed": error.cause, "exit_code": error.exit_code}
    except Exception as error:  # whatever stops one trial does not stop the others
        note |= {
            "failed": f"{type(error).__name__}: {error}",
            "exit_code": 1,
            "traceback": traceback.format_exc(),
        }
    write_json(asked["note"], note | {"seconds": time.perf_counter() - start})


def upstream(config: RunConfig, about: Any) -> dict[str, Any]:
    """What all trials or reported runs of a seed share, made once so that none of them waits for another."""
    bench = Bench(config, talk=Talk(silent=True))
    retrained = bench.retrained
    assert retrained is not None  # `retrain=false` is refused
    made = {"original": bench.original, "retrained": retrained}
    _ = bench.attributor
    for name in about["judged"]:
        judge(bench, name, made[name].model, made[name].key)
    return {}


def trial(config: RunConfig, about: Any) -> dict[str, Any]:
    """Unlearn and evaluate what the objective needs; of the model nothing is kept but its figures.

    `RunError` where the objective could not be computed.
    """
    from dareu.evaluation.comparison import compare

    bench = Bench(config, talk=Talk(silent=True))
    key = unlearn_key(bench)
    lock = bench.store.lock("trial", key)  # a setting may be tried twice at once
    try:
        kept = bench.store.find("unlearned", key) is not None
        unlearned = unlearn(bench)
        retrained = bench.retrained
        assert retrained is not None
        judged = {
            "retrained": judge(bench, "retrained", retrained.model, retrained.key),
            "unlearned": judge(bench, "unlearned", unlearned.model, unlearned.key),
        }
        if not kept:
            shutil.rmtree(unlearned.path, ignore_errors=True)
    finally:
        lock.release()
    summaries = {name: one.summary for name, one in judged.items()}
    comparison = compare(summaries)
    found = {"models": summaries, **comparison}
    objective = value(found, about["objective"])
    if objective is None:
        reason = comparison["missing"].get(about["objective"], "it is not a finite number")
        raise RunError(f"{about['objective']} was not computed: {reason}")
    figures = {name: value(found, name) for name in SHOWN}
    return {
        "objective": objective,
        "figures": figures,
        "unlearn_seconds": unlearned.seconds,
        **_steps(unlearned),
    }


def _steps(unlearned: Any) -> dict[str, Any]:
    return {key: unlearned.extra.get(key) for key in ("steps", "stopped")}


def final(config: RunConfig, about: Any) -> dict[str, Any]:
    """A run folder of the chosen setting, whose results say how it was chosen."""
    from dareu.report.page import write_report
    from dareu.workflow.experiment import train

    results = train(config, talk=Talk(silent=True))
    folder = Path(results["run_dir"])
    kept = Results.read(folder)
    if kept.tree().get("tuning") != about["tuning"]:
        Results.of(kept.tree() | {"tuning": about["tuning"]}).write(folder / FILE)
        write_report(folder)
    return {"objective": value(results, about["objective"]), "run_dir": str(folder)}


KINDS = {"upstream": upstream, "trial": trial, "final": final}
