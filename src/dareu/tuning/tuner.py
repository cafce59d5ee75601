"""One call of `dareu tune`, its checks done: what all share, trials batch by batch, the choice, the reported runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.config.compose import settable
from dareu.errors import DareuError
from dareu.runs.files import read_json, write_json
from dareu.runs.manifest import content_key
from dareu.tuning.options import Asked
from dareu.tuning.progress import Job, watched
from dareu.tuning.search_space import Setting, overrides_of, show_setting
from dareu.tuning.study import Search, open_storage
from dareu.tuning.trials_table import Trial, best, read_trials, write_chosen, write_no_setting, write_trials
from dareu.workflow.console import Talk
from dareu.workflow.jobs import Launch

VALIDATION = ("++evaluation.part=validation", "++evaluation.likelihoods=false")
NOTES = "notes"  # of jobs that are done anew by each call: their results are kept elsewhere
REPORT = ("++evaluation.part=report",)


@dataclass(frozen=True)
class Tuned:
    """The results folder, the reported run folders, and (what, why, exit code) of each that did not end well."""

    folder: Path
    runs: list[Path]
    failed: list[tuple[str, str, int]]


@dataclass(frozen=True)
class Method:
    """One method's configuration for trials, its search space and defaults, and the name of its study."""

    name: str
    config: RunConfig
    space: dict[str, Any]
    defaults: Setting

    @property
    def study(self) -> str:
        """Changes with the method's YAML and with its space, so that other trials are never taken for its own."""
        tree = {
            "method": self.config.method.model_dump(mode="json", exclude={"search"}),
            "space": self.config.method.search,
        }
        return f"{self.name}-{content_key(tree | {'keys': sorted(self.space)})[:8]}"


class Tuning:
    """One call of `tune`, its checks done."""

    def __init__(
        self, asked: Asked, methods: Sequence[Method], folder: Path, launch: Launch, talk: Talk
    ) -> None:
        self.asked, self.options, self.methods = asked, asked.tune, methods
        self.folder, self.launch, self.talk = folder, launch, talk
        self.failed: list[tuple[str, str, int]] = []

    def run(self) -> Tuned:
        seeds = [self.options.trial_seed, *(s for s in self.options.seeds if s != self.options.trial_seed)]
        shutil.rmtree(self.folder / NOTES, ignore_errors=True)  # of a call that was killed
        total = len(seeds) + len(self.methods) * (self.options.trials + len(self.options.seeds))
        with watched(self.talk, total, self.folder / "tune.log") as watch:
            self.watch = watch
            self._upstream(seeds)
            trials = self._trials()
            chosen = self._choose(trials)
            runs = self._finals(chosen)
        shutil.rmtree(self.folder / NOTES, ignore_errors=True)
        return Tuned(self.folder, runs, self.failed)

    def _job(
        self, kind: str, name: str, overrides: Sequence[str], about: Mapping[str, Any], told: str
    ) -> Job:
        """A job, its order in a file that it reads; `name` is the file, below the folder, that it writes last."""
        note = (self.folder / name).absolute()
        order = (self.folder / NOTES / "orders" / name).absolute()
        write_json(order, {"kind": kind, "note": str(note), "about": about})
        given = f"++job={json.dumps(str(order), ensure_ascii=False)}"
        return Job([*settable(self.asked.overrides), *overrides, given], note, told)

    def _run(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """The notes of jobs, those run now that have none yet."""
        self.watch(jobs)
        self.launch([j.overrides for j in jobs if not j.note.is_file()])
        return [read_json(j.note) for j in jobs]

    def _upstream(self, seeds: Sequence[int]) -> None:
        """Original, retrained model and attributor of every seed, before anything needs them."""
        jobs = []
        for seed in seeds:
            for_trials = seed == self.options.trial_seed
            part = VALIDATION if for_trials else REPORT
            about = {"judged": ["retrained"] if for_trials else ["original", "retrained"]}
            name = f"{NOTES}/upstream-{seed}.json"
            jobs.append(
                self._job(
                    "upstream",
                    name,
                    [f"method={self.methods[0].name}", f"++seed={seed}", *part],
                    about,
                    f"original, retrained model and attributor of seed {seed}",
                )
            )
        for note in self._run(jobs):
            if note["failed"]:
                error = DareuError(note["failed"], "All trials need this; nothing was tried.")
                error.exit_code = note["exit_code"]
                raise error

    def _trials(self) -> dict[str, list[Trial]]:
        """Batch by batch: all methods propose, all proposals run, Optuna hears of them."""
        storage = open_storage(self.folder / "study.journal")
        options = self.options
        searches = {
            m.name: Search(storage, m.study, m.space, m.defaults, options.sampler_seed, options.batch)
            for m in self.methods
        }
        for end in _batches(options.trials, options.batch):
            jobs, owners = [], []
            for method in self.methods:
                for p in searches[method.name].propose(end)[:end]:
                    if not p.told:
                        jobs.append(self._trial_job(method, p.position, p.setting))
                        owners.append((method, p.position))
            for (method, position), note in zip(owners, self._run(jobs), strict=True):
                searches[method.name].tell(position, note.get("objective"))
            self._table(searches)
        return self._table(searches)

    def _trial_job(self, method: Method, position: int, setting: Setting) -> Job:
        what = f"{method.name} trial {position + 1}/{self.options.trials}: {show_setting(setting)}"
        overrides = [
            f"method={method.name}",
            *overrides_of(setting),
            f"++seed={self.options.trial_seed}",
            *VALIDATION,
        ]
        about = {"objective": self.options.objective}
        return self._job("trial", f"trials/{method.study}/{position}.json", overrides, about, what)

    def _table(self, searches: Mapping[str, Search]) -> dict[str, list[Trial]]:
        found = {
            m.name: read_trials(m.name, self.folder / "trials" / m.study, searches[m.name].proposals())[
                : self.options.trials
            ]
            for m in self.methods
        }
        write_trials(self.folder, found)
        return found

    def _choose(self, trials: Mapping[str, Sequence[Trial]]) -> dict[str, Trial]:
        """Every method's best trial; a method none of whose trials has a figure is told of and left out."""
        chosen = {}
        for method in self.methods:
            tried, folder = trials[method.name], self._no_setting(method.name)
            shutil.rmtree(folder, ignore_errors=True)  # of a call with fewer trials
            top = best(tried)
            if top is not None:
                chosen[method.name] = top
                continue
            reason = f"all {len(tried)} trials failed, the first because: {tried[0].failed}"
            self.failed.append((method.name, reason, 3))
            write_no_setting(folder, method.config, reason)
        write_chosen(self.folder, chosen)
        return chosen

    def _no_setting(self, name: str) -> Path:
        """A folder that stands for a method without a setting, so that tables name it."""
        return self.folder / "runs" / f"{name}-no-setting"

    def _finals(self, chosen: Mapping[str, Trial]) -> list[Path]:
        jobs, folders, names = [], [], []
        for name, top in chosen.items():
            for seed in self.options.seeds:
                folder = self.folder / "runs" / f"{name}-seed{seed}"
                overrides = [f"method={name}", *overrides_of(top.setting), f"++seed={seed}", *REPORT]
                overrides += [f"++run_dir={json.dumps(str(folder))}", "++overwrite=true"]
                about = {"objective": self.options.objective, "tuning": self._tuning(top)}
                jobs.append(
                    self._job("final", f"{NOTES}/{name}-{seed}.json", overrides, about, f"{name} seed {seed}")
                )
                folders.append(folder)
                names.append(f"{name} seed {seed}")
        for name, note in zip(names, self._run(jobs), strict=True):
            if note["failed"]:
                self.failed.append((name, note["failed"], note["exit_code"]))
        folders += [self._no_setting(m.name) for m in self.methods if m.name not in chosen]
        return [f for f in folders if any((f / n).is_file() for n in ("results.json", "failure.json"))]

    def _tuning(self, top: Trial) -> dict[str, Any]:
        evaluation = self.methods[0].config.evaluation
        return {
            "trials": self.options.trials,
            "chosen_by": self.options.objective,
            "part": "validation",
            "validation_share": evaluation.validation_share,
            "seed": self.options.trial_seed,
            "trial": top.number,
            "objective": top.objective,
            "setting": top.setting,
        }


def _batches(trials: int, batch: int) -> list[int]:
    """How many trials each method has after each batch."""
    return [*range(batch, trials, batch), trials]
