"""`dareu tune`: the same number of trials for every method, then each one's best setting on several seeds.

Optuna proposes, a launcher of Hydra runs, and files in the results folder remember:

    run.json, config.yaml       what this folder tunes; the same command goes on here, another is refused
    study.journal               Optuna's own memory of the proposals
    trials/<study>/<n>.json     how a trial ended, written by the job itself
    trials.csv, trials.jsonl    all of them as one table
    chosen.yaml                 every method's best setting
    runs/<method>-seed<seed>/   the reported runs
    leaderboard.md, .csv        the table over them

The sweeper plugin hydra-optuna-sweeper is not used: for Hydra 1.3 its last release needs Optuna below 3, it cannot
begin with the defaults, and it repeats finished trials. The search spaces are still written in Hydra's grammar.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dareu.config.compose import as_yaml, compose, settable
from dareu.data.evaluation_parts import part_of
from dareu.errors import ConfigError, RunError
from dareu.runs.folder import RunFolder, input_paths
from dareu.runs.manifest import content_key
from dareu.tuning.options import Asked
from dareu.tuning.search_space import space_of
from dareu.tuning.trial_jobs import job
from dareu.tuning.tuner import VALIDATION, Method, Tuned, Tuning
from dareu.workflow.console import Talk
from dareu.workflow.jobs import launcher
from dareu.workflow.library_settings import quiet
from dareu.workflow.stages import Bench
from dareu.workflow.validate import check_run, check_split


def methods_of(asked: Asked) -> list[Method]:
    """Every method composed and checked. `ConfigError` names the YAML that is wrong."""
    found = []
    for name in asked.tune.methods:
        config = compose([f"method={name}", *_trial_overrides(asked)], asked.config_dir)
        found.append(Method(name, config, *space_of(config, asked.fixed)))
    return found


def _trial_overrides(asked: Asked) -> list[str]:
    return [*settable(asked.overrides), f"++seed={asked.tune.trial_seed}", *VALIDATION]


def tune(asked: Asked, talk: Talk | None = None) -> Tuned:
    """Run what is asked, and go on where an earlier call of it stopped.

    Errors, all before anything is written: `ConfigError`, `DataError`, `ModelError`, `RunError` where the folder
    holds another tuning or another process is at work there. What all runs share failing is the error that it is.
    """
    quiet()
    talk = talk or Talk()
    methods = methods_of(asked)
    if any(method.config.rounds is not None for method in methods):  # from an experiment
        raise ConfigError(
            "`dareu tune` takes no rounds: a trial is one request.", "Leave the experiment out."
        )
    bench = Bench(methods[0].config, talk=talk)
    for method in methods:
        check_run(method.config)
        check_split(method.config, bench.split)
    for part in ("validation", "report"):
        part_of(bench.split, part, bench.config.evaluation.validation_share)  # type: ignore[arg-type]
    folder = _open(asked, bench)
    with _alone(folder.path), launcher(job, asked.hydra, asked.config_dir, folder.path / "jobs") as launch:
        try:
            return Tuning(asked, methods, folder.path, launch, talk).run()
        finally:
            with suppress(OSError):
                (folder.path / "jobs").rmdir()  # empty unless the launcher wrote logs


def _open(asked: Asked, bench: Bench) -> RunFolder:
    """The folder of results. More methods, trials or seeds go on in the same one."""
    config = bench.config
    context = config.model_dump(
        mode="json",
        exclude={"method", "run_dir", "cache_dir", "overwrite", "device", "threads", "logging", "experiment"},
    )
    options = asked.tune.model_dump(include={"objective", "sampler_seed", "batch"})
    key = content_key({"context": context, "data": bench.corpus.key, **options})
    path = Path(config.run_dir) if config.run_dir else Path("runs") / f"tune-{key[:8]}"
    read = input_paths(config.model_dump(mode="json"))
    return RunFolder.open(path, key, as_yaml(config), config.overwrite, read)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"Another process is tuning in {folder}.", "Wait for it, or give another run_dir."
        ) from None
    try:
        yield
    finally:
        lock.release()
