"""`dareu train` and `dareu evaluate`: every stage in order, and the run folder that a person opens afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape

from dareu.config import RunConfig
from dareu.config.compose import as_yaml
from dareu.data.corpus import Corpus
from dareu.data.evaluation_parts import part_of
from dareu.errors import DareuError
from dareu.evaluation.comparison import NO_RETRAINED
from dareu.evaluation.results import FILE, SCHEMA_VERSION, Results
from dareu.runs.files import write_json, write_jsonl
from dareu.runs.folder import RunFolder, default_run_dir, input_paths
from dareu.runs.manifest import content_key, git_revision, peak_memory_mb, versions
from dareu.workflow.console import Talk
from dareu.workflow.evaluate import Judged, checkpoint_of, judge_models
from dareu.workflow.library_settings import quiet, settle
from dareu.workflow.prepare import check_model_folder, folder_digest
from dareu.workflow.sequential import Requests, rounds_tree
from dareu.workflow.stages import Artifact, Bench

LOG, FAILURE = "run.log", "failure.json"


def train(
    config: RunConfig,
    corpus: Corpus | None = None,
    talk: Talk | None = None,
    under: str | None = None,
    opened: Callable[[Path], Any] = lambda path: None,
) -> dict[str, Any]:
    """Run everything that `config` asks for and return what `results.json` holds.

    A finished run is not run again; an interrupted one goes on where it stood. `under`: a folder of run folders,
    in place of `run_dir`. `opened` is told the run folder once it is there.
    """
    quiet()
    bench = Bench(config, corpus, talk)
    requests = Requests(bench)
    folder = open_run(bench, requests.key, config.method.name, under)
    opened(folder.path)
    if folder.finished:
        bench.talk.say(f"This run is finished already: {escape(str(folder.path))}")
        return read_run(folder)
    settle()
    with noted(bench, folder):
        if config.retrain and not requests.rounds:
            _ = bench.original, bench.retrained
        unlearned = requests.unlearn(folder.path / "logs", judge=True)
        return judge_all(bench, folder, unlearned, config.method.name, requests)


def evaluate(
    config: RunConfig, checkpoint: str, corpus: Corpus | None = None, talk: Talk | None = None
) -> dict[str, Any]:
    """Put any checkpoint folder before the same judge, as if a method had made it."""
    quiet()
    from dareu.models.load import load_tokenizer

    check_model_folder(checkpoint, must_be_local=True)
    bench = Bench(config, corpus, talk)
    load_tokenizer(checkpoint)  # told before the bench is made, not after it
    path = Path(checkpoint)
    name = path.parent.name if path.name == "model" and path.parent.name else path.name
    key = folder_digest(path)
    folder = open_run(bench, key, f"evaluate-{name}", inputs=[checkpoint])
    if folder.finished:
        bench.talk.say(f"This evaluation is finished already: {escape(str(folder.path))}")
        return read_run(folder)
    given = Artifact(path, key, float("nan"), float("nan"), {"given": str(path)})
    with noted(bench, folder):
        return judge_all(bench, folder, given, name)


@contextmanager
def noted(bench: Bench, folder: RunFolder) -> Iterator[None]:
    """Keep what is told in the run's log, and the reason of a failure where comparisons look for it."""
    bench.talk.log = folder.path / LOG
    failure = folder.path / FAILURE
    failure.unlink(missing_ok=True)  # of an attempt that this one goes on from
    try:
        yield
    except Exception as error:
        reason = error.cause if isinstance(error, DareuError) else f"{type(error).__name__}: {error}"
        bench.talk.note(f"failed: {reason}")
        write_json(failure, {"reason": reason})
        raise
    finally:
        bench.talk.log = None


def open_run(
    bench: Bench, key: str, name: str, under: str | None = None, inputs: Sequence[str] = ()
) -> RunFolder:
    """The run's folder, `run_dir` or one below `under`. Its key covers all that the figures depend on.

    `inputs`: files and folders that the run reads beside those that its configuration names.
    """
    config = bench.config
    part_of(bench.split, config.evaluation.part, config.evaluation.validation_share)  # told before the work
    run_key = content_key(
        {
            "model": key,
            "attributor": bench.attributor_key,
            "retrained": bench.retrained_key if config.retrain else None,
            "evaluation": config.evaluation.measured() | {"batch_size": config.evaluation.batch_size},
            "forget": bench.split.forget_owners,
        }
        | rounds_tree(bench)
    )
    path = default_run_dir(name, config.seed, run_key)
    if under or config.run_dir:
        path = Path(under) / path.name if under else Path(str(config.run_dir))
    read = [*input_paths(config.model_dump(mode="json")), *inputs]
    return RunFolder.open(path, run_key, as_yaml(config), config.overwrite, read)


def read_run(folder: RunFolder) -> dict[str, Any]:
    """The results of a finished run."""
    if not (folder.path / "report.html").is_file():  # a process killed between the two left only the results
        from dareu.report.page import write_report

        write_report(folder.path)
    return Results.read(folder.path).tree() | {"run_dir": str(folder.path)}


def judge_all(
    bench: Bench, folder: RunFolder, unlearned: Artifact, method: str, requests: Requests | None = None
) -> dict[str, Any]:
    """Evaluate all models of the run, fill its folder and return its results; with rounds, those of the last one."""
    from dareu.evaluation.beside import compare_models
    from dareu.report.page import write_report

    entries = requests.entries() if requests else []
    rounds = requests.rounds if requests else []
    judged = rounds[-1].judged if rounds else judge_models(bench, unlearned)
    records = {name: one.records() for name, one in judged.items()}
    summaries = {name: one.summary for name, one in judged.items()}
    comparison = compare_models(
        records, summaries, texts_of(bench.corpus), suite=bench.config.evaluation.suite
    )
    results = _results(bench, unlearned, judged, method)
    missing = {f"{name}.{k}": v for name, s in summaries.items() for k, v in s.get("missing", {}).items()}
    missing |= _left_out(bench, unlearned) | comparison.get("missing", {})
    results |= comparison | {"missing": missing}
    if rounds:
        results["rounds"] = entries
        results["seconds"]["unlearn"] = sum(one.unlearned.seconds for one in rounds)
    lock = bench.store.lock("run", folder.key)  # the same command may run twice at once
    try:
        if folder.finished:
            return read_run(folder)
        _fill(folder, unlearned, records)
        for one in rounds:
            part = folder.path / "rounds" / str(one.number)
            _records(part / "samples", {name: model.records() for name, model in one.judged.items()})
            shutil.copyfile(one.unlearned.path / "training.jsonl", part / "training.jsonl")
        Results.of(results).write(folder.path / FILE)
        write_report(folder.path)
    finally:
        lock.release()
    return results | {"run_dir": str(folder.path)}


def _left_out(bench: Bench, unlearned: Artifact) -> dict[str, str]:
    """Paths of `results.json` that this run has no figures for, and why."""
    left = {}
    if bench.config.original:
        left["seconds.original"] = "the original model was trained elsewhere"
    if not bench.config.retrain:
        left |= dict.fromkeys(("models.retrained", "seconds.retrained"), NO_RETRAINED)
    if "given" in unlearned.extra:
        left["seconds.unlearn"] = "the model was unlearned elsewhere"
    return left


def _results(bench: Bench, unlearned: Artifact, judged: dict[str, Judged], method: str) -> dict[str, Any]:
    from dareu.models.accelerator import accelerator_used

    config, split = bench.config, bench.split
    given = "given" in unlearned.extra
    retrained = bench.retrained
    device, held = accelerator_used()
    return {
        "schema_version": SCHEMA_VERSION,
        "method": method,
        "seed": config.seed,
        "data": {
            "name": config.data.name,
            "owners": len(bench.corpus.owners),
            "forget_owners": list(split.forget_owners),
            "n_forget": len(split.forget),
            "n_retain": len(split.retain),
            "n_test": len(split.test),
            "part": config.evaluation.part,
        },
        "data_key": bench.corpus.key,
        "definitions": {"truth_ratio": config.evaluation.truth_ratio},
        "models": {
            name: {k: v for k, v in one.summary.items() if k not in ("missing", "truth_ratios")}
            for name, one in judged.items()
        },
        "seconds": {
            "original": None if config.original else bench.original.seconds,
            "retrained": retrained.seconds if retrained else None,
            "attributor": bench.attributor.seconds,
            "unlearn": None if given else unlearned.seconds,
            "evaluate": judged["unlearned"].seconds,
        },
        "peak_memory_mb": peak_memory_mb(),
        "accelerator": {"name": device, "peak_memory_mb": held},
        "attributor": bench.attributor.extra.get("report", {}),
        "outcome": unlearned.extra,
        "tuning": None,  # `dareu tune` says here how it chose the setting
        "unlearn_config": None if given else config.method.model_dump(mode="json"),
        "versions": versions(),
        "git": git_revision(),
    }


def texts_of(corpus: Corpus) -> list[str]:
    """Every text of the corpus: questions, answers, and what stands in for them."""
    return [
        text
        for s in (*corpus.samples, *corpus.test)
        for text in (
            s.prompt,
            s.response,
            *s.paraphrased_prompts,
            *filter(None, [s.paraphrased_response]),
            *s.wrong_responses,
        )
    ]


def _records(folder: Path, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for name, rows in records.items():
        write_jsonl(folder / f"{name}.jsonl", rows)


def _fill(folder: RunFolder, unlearned: Artifact, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write into the run folder what a person looks for there."""
    _records(folder.path / "samples", records)
    if "given" in unlearned.extra:
        return
    folder.put_model(checkpoint_of(unlearned))
    shutil.copyfile(unlearned.path / "training.jsonl", folder.path / "training.jsonl")
