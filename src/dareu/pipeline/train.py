"""`dareu train` and `dareu evaluate`: every stage in order, and the run folder that a person opens afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.data.corpus import Corpus
from dareu.pipeline.bench import Artifact, Bench
from dareu.pipeline.compose import as_yaml
from dareu.pipeline.console import Talk
from dareu.pipeline.judge import Judged, judge
from dareu.pipeline.prepare import check_model_folder, folder_digest
from dareu.pipeline.quiet import quiet
from dareu.pipeline.unlearning import unlearn, unlearn_key
from dareu.runs.atomic import read_json, write_json
from dareu.runs.folder import RunFolder, default_run_dir
from dareu.runs.manifest import content_key, git_revision, peak_memory_mb, versions


def train(config: RunConfig, corpus: Corpus | None = None, talk: Talk | None = None) -> dict[str, Any]:
    """Run everything that `config` asks for and return what `results.json` holds.

    A finished run is not run again; an interrupted one goes on where it stood.
    """
    quiet()
    bench = Bench(config, corpus, talk)
    folder = _open(bench, unlearn_key(bench), config.method.name)
    if folder.finished:
        bench.talk.say(f"This run is finished already: {folder.path}")
        return _read(folder)
    if config.retrain:
        _ = bench.original, bench.retrained
    unlearned = unlearn(bench, folder.path / "logs")
    return _judge_all(bench, folder, unlearned, config.method.name)


def evaluate(
    config: RunConfig, checkpoint: str, corpus: Corpus | None = None, talk: Talk | None = None
) -> dict[str, Any]:
    """Put any checkpoint folder before the same judge, as if a method had made it."""
    quiet()
    check_model_folder(checkpoint, must_be_local=True)
    bench = Bench(config, corpus, talk)
    path = Path(checkpoint)
    name = path.parent.name if path.name == "model" and path.parent.name else path.name
    key = folder_digest(path)
    folder = _open(bench, key, f"evaluate-{name}")
    if folder.finished:
        bench.talk.say(f"This evaluation is finished already: {folder.path}")
        return _read(folder)
    given = Artifact(path, key, float("nan"), float("nan"), {"given": str(path)})
    return _judge_all(bench, folder, given, name)


def _open(bench: Bench, key: str, name: str) -> RunFolder:
    """The run's folder. Its key covers all that the figures depend on."""
    config = bench.config
    run_key = content_key(
        {
            "model": key,
            "attributor": bench.attributor_key,
            "retrained": bench.retrained_key if config.retrain else None,
            "evaluation": config.evaluation.model_dump(),
            "forget": bench.split.forget_owners,
        }
    )
    path = Path(config.run_dir) if config.run_dir else default_run_dir(name, config.seed, run_key)
    return RunFolder.open(path, run_key, as_yaml(config), config.overwrite)


def _read(folder: RunFolder) -> dict[str, Any]:
    results: dict[str, Any] = read_json(folder.path / "results.json")
    return results | {"run_dir": str(folder.path)}


def _judge_all(bench: Bench, folder: RunFolder, unlearned: Artifact, method: str) -> dict[str, Any]:
    from dareu.evaluation.compare_models import compare
    from dareu.report.html import write_report

    judged = {"original": judge(bench, "original", bench.original.model, bench.original.key)}
    if bench.retrained is not None:
        judged["retrained"] = judge(bench, "retrained", bench.retrained.model, bench.retrained.key)
    checkpoint = unlearned.path if "given" in unlearned.extra else unlearned.model
    judged["unlearned"] = judge(bench, "unlearned", checkpoint, unlearned.key)
    results = _results(bench, unlearned, judged, method)
    summaries = {name: one.summary for name, one in judged.items()}
    comparison = compare(summaries)
    missing = {f"{name}.{k}": v for name, s in summaries.items() for k, v in s.get("missing", {}).items()}
    results |= comparison | {"missing": missing | comparison.get("missing", {})}
    _fill(folder, unlearned, checkpoint, judged)
    write_json(folder.path / "results.json", results)
    write_report(folder.path)
    return results | {"run_dir": str(folder.path)}


def _results(bench: Bench, unlearned: Artifact, judged: dict[str, Judged], method: str) -> dict[str, Any]:
    config, split = bench.config, bench.split
    given = "given" in unlearned.extra
    retrained = bench.retrained
    return {
        "method": method,
        "seed": config.seed,
        "data": {
            "name": config.data.name,
            "owners": len(bench.corpus.owners),
            "forget_owners": list(split.forget_owners),
            "n_forget": len(split.forget),
            "n_retain": len(split.retain),
            "n_test": len(split.test),
        },
        "data_key": bench.corpus.key,
        "models": {
            name: {k: v for k, v in one.summary.items() if k not in ("missing", "truth_ratios")}
            for name, one in judged.items()
        },
        "seconds": {
            "original": bench.original.seconds,
            "retrained": retrained.seconds if retrained else None,
            "attributor": bench.attributor.seconds,
            "unlearn": None if given else unlearned.seconds,
            "evaluate": judged["unlearned"].seconds,
        },
        "peak_memory_mb": peak_memory_mb(),
        "attributor": bench.attributor.extra.get("report", {}),
        "outcome": unlearned.extra,
        "unlearn_config": None if given else config.method.model_dump(mode="json"),
        "versions": versions(),
        "git": git_revision(),
    }


def _fill(folder: RunFolder, unlearned: Artifact, checkpoint: Path, judged: dict[str, Judged]) -> None:
    """Copy into the run folder what a person looks for there."""
    samples = folder.path / "samples"
    samples.mkdir(exist_ok=True)
    for name, one in judged.items():
        shutil.copyfile(one.samples, samples / f"{name}.jsonl")
    if "given" in unlearned.extra:
        return
    target, partial = folder.path / "model", folder.path / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoint, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    shutil.copyfile(unlearned.path / "training.jsonl", folder.path / "training.jsonl")
