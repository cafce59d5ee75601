"""`dareu tune`: the same number of trials for every method, then each one's best setting on several seeds.

Optuna proposes, a launcher of Hydra runs, and the results folder holds:

    run.json, config.yaml       what this folder tunes; the same command continues here, another is refused
    study.journal               Optuna's memory: the proposals, and how each trial ended
    trials.csv, trials.jsonl    all trials as one table, made from the journal
    chosen.yaml                 every method's best setting
    runs/<method>-seed<seed>/   the reported runs
    leaderboard.md, .csv        the table over them
    tune.log                    what was printed

The sweeper plugin hydra-optuna-sweeper is not used: for Hydra 1.3 its last release needs Optuna below 3, it cannot
begin with the defaults, and it repeats finished trials. The search spaces are still written in Hydra's grammar.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.config.compose import as_yaml, compose, settable
from dareu.data.split import part_of
from dareu.errors import ConfigError, DareuError, RunError, note
from dareu.runs.folder import RunFolder, input_paths
from dareu.runs.manifest import content_key
from dareu.tuning.jobs import KNOWLEDGE
from dareu.tuning.options import TuneCommand
from dareu.tuning.search_space import Setting, overrides_of, show_setting, space_of
from dareu.tuning.study import Search, Trial, best, open_storage
from dareu.tuning.trials_table import write_chosen, write_leaderboard, write_no_setting, write_trials
from dareu.workflow.jobs import Job, Launch, Outcome, job_launcher
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages
from dareu.workflow.validate import check_data, check_run

REPORT = ("++evaluation.part=report",)
JOURNAL, LOG = "study.journal", "tune.log"


@dataclass(frozen=True)
class Tuned:
    """The results folder, the reported run folders, and (what, why, exit code) of each that did not end well."""

    folder: Path
    runs: list[Path]
    failed: list[tuple[str, str, int]]


@dataclass(frozen=True)
class Method:
    """One method's configuration for trials, its search space and defaults."""

    name: str
    config: RunConfig
    space: dict[str, Any]
    defaults: Setting


def validation(objective: str) -> tuple[str, str]:
    """What the evaluation of trials differs by. Likelihoods take most of its time, and knowledge left needs them."""
    return ("++evaluation.part=validation", f"++evaluation.likelihoods={str(objective == KNOWLEDGE).lower()}")


def methods_of(command: TuneCommand) -> list[Method]:
    """Every method composed and checked.

    Raises:
        ConfigError: Names the YAML that is wrong.
    """
    shared = [*settable(command.overrides), f"++seed={command.tune.trial_seed}"]
    shared += validation(command.tune.objective)
    configs = {
        name: compose([f"method={name}", *shared], command.config_dir) for name in command.tune.methods
    }
    return [Method(name, config, *space_of(config, command.fixed)) for name, config in configs.items()]


def tune(command: TuneCommand) -> Tuned:
    """Run the command, continuing where an earlier call of it stopped.

    Raises:
        ConfigError, DataError, ModelError, RunError: Before anything is written: a mistake, a folder that holds
            another tuning, another process at work there. What all runs share failing is the error that it is.
    """
    methods = methods_of(command)
    if any(method.config.rounds is not None for method in methods):  # from an experiment
        raise ConfigError(
            "`dareu tune` does not accept rounds: a trial is one request.", "Leave the experiment out."
        )
    first = Stages(prepare(methods[0].config))
    stages = {method.name: _stages_of(method, first) for method in methods}
    for part in ("validation", "report"):
        part_of(first.context.split, part, first.context.config.evaluation.validation_share)  # type: ignore[arg-type]
    config = first.context.config
    read = input_paths(config.model_dump(mode="json"))
    opened = RunFolder.open(*_folder(command, first), config.overwrite, read, wait=False)
    folder = opened.path
    studies = {method.name: _study_name(method, stages[method.name]) for method in methods}
    jobs = folder / "jobs"
    with opened.working(), job_launcher(command.hydra, command.config_dir, jobs, folder / LOG) as launch:
        try:
            return Tuning(command, methods, studies, folder, launch).run()
        finally:
            with suppress(OSError):
                jobs.rmdir()  # empty unless the launcher wrote logs


def _stages_of(method: Method, first: Stages) -> Stages:
    """The stages of another method on the same data, its configuration checked."""
    with quiet_libraries():
        check_run(method.config)
        check_data(method.config, first.context.split)
    return Stages(replace(first.context, config=method.config))


def _folder(command: TuneCommand, stages: Stages) -> tuple[Path, str, str]:
    """(path, key, config.yaml) of the results folder. More methods, trials or seeds continue in the same one.

    The key is made of contents: data and models may move to another path.
    """
    config = stages.context.config
    assert stages.retrained is not None
    tree = {
        "original": stages.original.key(),
        "retrained": stages.retrained.key(),
        "attributor": stages.attributor.key(),
        "forget": stages.context.split.forget_owners,
        "evaluation": config.evaluation.measured() | {"batch_size": config.evaluation.batch_size},
        **command.tune.model_dump(include={"objective", "sampler_seed", "batch"}),
    }
    key = content_key(tree)
    path = Path(config.run_dir) if config.run_dir else Path("runs") / f"tune-{key[:8]}"
    return path, key, as_yaml(config)


def _study_name(method: Method, stages: Stages) -> str:
    """Changes with what the defaults make and with the space, so that other trials are never taken for its own."""
    tree = {
        "defaults": stages.unlearned.key(),
        "space": method.config.method.search,
        "keys": sorted(method.space),
    }
    return f"{method.name}-{content_key(tree)[:8]}"


class Tuning:
    """One call of `tune`, its checks done."""

    def __init__(
        self,
        command: TuneCommand,
        methods: Sequence[Method],
        studies: Mapping[str, str],
        folder: Path,
        launch: Launch,
    ) -> None:
        self.command, self.options, self.methods = command, command.tune, methods
        self.folder, self.launch = folder, launch
        self.failed: list[tuple[str, str, int]] = []
        storage = open_storage(folder / JOURNAL)
        self.searches = {
            m.name: Search(
                storage,
                studies[m.name],
                m.space,
                m.defaults,
                self.options.sampler_seed,
                self.options.batch,
            )
            for m in methods
        }

    def run(self) -> Tuned:
        """What all trials share, the trials batch by batch, the choice, the reported runs, the table over them."""
        self._build_shared()
        self._run_trials()
        chosen = self._choose()
        runs = self._report(chosen)
        write_leaderboard(self.folder, runs)
        return Tuned(self.folder, runs, self.failed)

    def _job(
        self, function: str, method: str, overrides: Sequence[str], title: str, about: Mapping[str, Any]
    ) -> Job:
        every = [*self.command.overrides, f"method={method}", *overrides]
        return Job(f"dareu.tuning.jobs:{function}", every, title, {"title": title, **about})

    def _build_shared(self) -> None:
        """Original, retrained model and attributor of every seed, before anything needs them."""
        trial_seed, jobs = self.options.trial_seed, []
        for seed in dict.fromkeys((trial_seed, *self.options.seeds)):
            part, evaluated = (
                (validation(self.options.objective), ["retrained"])
                if seed == trial_seed
                else (REPORT, ["original", "retrained"])
            )
            title = f"original, retrained model and attributor of seed {seed}"
            about = {"evaluated": evaluated}
            jobs.append(self._job("shared", self.methods[0].name, [f"++seed={seed}", *part], title, about))
        for outcome in self.launch(jobs):
            if outcome.failed:
                error = DareuError(outcome.failed, "All trials need this; no trial was run.")
                error.exit_code = outcome.exit_code
                raise error

    def _run_trials(self) -> None:
        """Batch by batch: all methods propose, all proposals run and record how they ended."""
        options = self.options
        for search in self.searches.values():
            search.try_again()
        for end in [*range(options.batch, options.trials, options.batch), options.trials]:
            jobs = []
            for method in self.methods:
                trials = self.searches[method.name].propose(end)[:end]
                jobs += [self._trial(method, t) for t in trials if not t.ended]
            for outcome in self.launch(jobs):
                if outcome.failed:  # not the trial, which records how it ended, but what runs it
                    raise RunError(f"{outcome.title}: {outcome.failed}.", str(outcome.result.get("cure", "")))
            self._write_table()
        self._write_table()

    def _trial(self, method: Method, trial: Trial) -> Job:
        title = (
            f"{method.name} trial {trial.position + 1}/{self.options.trials}: {show_setting(trial.setting)}"
        )
        overrides = [*overrides_of(trial.setting), f"++seed={self.options.trial_seed}"]
        overrides += validation(self.options.objective)
        about = {
            "objective": self.options.objective,
            "journal": str((self.folder / JOURNAL).absolute()),
            "study": self.searches[method.name].name,
            "number": trial.number,
        }
        return self._job("trial", method.name, overrides, title, about)

    def _trials(self, method: str) -> list[Trial]:
        """The trials of a method that have ended, as many as the command names."""
        return [t for t in self.searches[method].trials()[: self.options.trials] if t.ended]

    def _write_table(self) -> None:
        write_trials(self.folder, {m.name: self._trials(m.name) for m in self.methods})

    def _choose(self) -> dict[str, Trial]:
        """Every method's best trial; a method none of whose trials has a figure is reported and left out."""
        chosen = {}
        for method in self.methods:
            tried, folder = self._trials(method.name), self._no_setting(method.name)
            shutil.rmtree(folder, ignore_errors=True)  # of a call with fewer trials
            top = best(tried)
            if top is not None:
                chosen[method.name] = top
                equal = sum(t.objective == top.objective for t in tried)
                if equal > 1:
                    note(
                        f"{method.name}: {equal} of {len(tried)} trials are equally good "
                        f"({self.options.objective} {top.objective:.3f}); the first of them is taken."
                    )
                continue
            reason = f"all {len(tried)} trials failed, the first because: {tried[0].outcome.get('failed')}"
            self.failed.append((method.name, reason, 3))
            write_no_setting(folder, method.config, reason)
        write_chosen(self.folder, chosen)
        return chosen

    def _no_setting(self, name: str) -> Path:
        """A folder that stands for a method without a setting, so that tables name it."""
        return self.folder / "runs" / f"{name}-no-setting"

    def _report(self, chosen: Mapping[str, Trial]) -> list[Path]:
        """Each method's best setting on every seed. Returns the run folders."""
        jobs, folders = [], []
        for name, top in chosen.items():
            for seed in self.options.seeds:
                folder = self.folder / "runs" / f"{name}-seed{seed}"
                overrides = [*overrides_of(top.setting), f"++seed={seed}", *REPORT]
                overrides += [f"++run_dir={json.dumps(str(folder))}", "++overwrite=true"]
                about = {"objective": self.options.objective, "tuning": self._tuning(top)}
                jobs.append(self._job("report_run", name, overrides, f"{name} seed {seed}", about))
                folders.append(folder)
        outcomes: list[Outcome] = self.launch(jobs)
        self.failed += [(o.title, o.failed, o.exit_code) for o in outcomes if o.failed]
        folders += [self._no_setting(m.name) for m in self.methods if m.name not in chosen]
        return [f for f in folders if any((f / n).is_file() for n in ("results.json", "failure.json"))]

    def _tuning(self, top: Trial) -> dict[str, Any]:
        """What the results of a reported run say of how its setting was chosen."""
        return {
            "trials": self.options.trials,
            "chosen_by": self.options.objective,
            "part": "validation",
            "validation_share": self.methods[0].config.evaluation.validation_share,
            "seed": self.options.trial_seed,
            "trial": top.position + 1,
            "objective": top.objective,
            "setting": top.setting,
        }
