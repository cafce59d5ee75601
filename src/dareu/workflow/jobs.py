"""Jobs of sweeps and of tuning: Hydra's launchers run them here, in processes of this machine, or on a cluster.

A job is a list of overrides and the name of a function. What it reports goes back as its `Outcome`; a job that fails
does not end the others.
"""

import base64
import importlib
import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from dareu.config import RunConfig, parse
from dareu.config.compose import explain, hydra_started, quoted, search_path, settable, with_recommended
from dareu.errors import ConfigError, DareuError, DataError, ModelError, RunError, TrainingError, reason_of
from dareu.runs.files import writing_to
from dareu.workflow.console import Console

QUIET = (
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.output_subdir=null",
    "hydra.sweep.subdir=.",
    "hydra.job.chdir=false",
)
LASTING = (ConfigError, DataError, ModelError, TrainingError)  # a second attempt would end in the same way


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        function: "module:name" of a function of (configuration, `about`, the outcome's `result` to fill, console).
        overrides: The configuration.
        about: What else the function needs, as plain data.
        title: Its name on the screen.
    """

    function: str
    overrides: Sequence[str]
    title: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `failed` is the reason where it failed, `passing` whether another attempt may end well."""

    title: str
    failed: str | None
    exit_code: int
    passing: bool
    seconds: float
    result: dict[str, Any]


Work = Callable[[RunConfig, dict[str, Any], dict[str, Any], Console], None]
Launch = Callable[[Sequence[Job]], list[Outcome]]


@contextmanager
def job_launcher(
    hydra: Sequence[str], config_dir: str | None, folder: Path, log: Path | None = None
) -> Iterator[Launch]:
    """A function that runs jobs and gives their outcomes, in the order of the jobs.

    Args:
        hydra: Overrides of Hydra itself, such as `hydra/launcher=joblib`.
        config_dir: The user's folder of YAML files.
        folder: Where a launcher may put files of its own.
        log: A file to which each job adds what it prints.

    Raises:
        ConfigError: There is no such launcher.
        RunError: By the function: a job's process is gone, without an outcome.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.types import HydraContext, RunMode
    from omegaconf.errors import OmegaConfBaseException

    own = [*QUIET, f"hydra.sweep.dir={quoted(str(folder.absolute()))}", *search_path(config_dir), *hydra]
    with hydra_started():
        current: Any = GlobalHydra.instance().hydra
        try:
            config = current.compose_config("train", own, RunMode.MULTIRUN)
            context = HydraContext(config_loader=current.config_loader, callbacks=Callbacks(config))
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=run_job, config=config
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error) from None
        count = 0

        def launch(jobs: Sequence[Job]) -> list[Outcome]:
            nonlocal count
            lists = [[*settable(job.overrides), _order(job, log)] for job in jobs]
            try:
                ended = launcher.launch(lists, count) if jobs else []
            except Exception as error:  # `run_job` raises none: a launcher's own, of a process that is gone
                said = " ".join(line.strip() for line in str(error).splitlines()[:2]).rstrip(".")
                raise RunError(
                    f"A job ended without a result ({said or type(error).__name__}).",
                    "Can the launcher start jobs here? Was one killed, out of time or out of memory? The same command "
                    "goes on from what is finished.",
                ) from error
            count += len(jobs)
            return [one.return_value for one in ended]

        yield launch


@contextmanager
def launcher_files(hydra: Sequence[str], runs: Path) -> Iterator[Path]:
    """A folder for a launcher's own files, which is deleted at the end.

    That of submitit lies in `runs`, which the nodes of a cluster see, and stays after an error where it has logs of
    jobs.

    Raises:
        RunError: Nothing can be written to `runs`.
    """
    if not any(override.lstrip("+").startswith("hydra/launcher=submitit") for override in hydra):
        with TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    with writing_to(runs):
        runs.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix=".jobs-", dir=runs))
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # it holds logs
            folder.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _order(job: Job, log: Path | None) -> str:
    """The job as an override, in letters that need no quoting."""
    tree = {
        "function": job.function,
        "title": job.title,
        "about": job.about,
        "log": None if log is None else str(log.absolute()),
        "parent": os.getpid(),
    }
    return f"++job='{base64.urlsafe_b64encode(json.dumps(tree).encode()).decode()}'"


def run_job(tree: Any) -> Outcome:
    """One job, as a launcher of Hydra calls it."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from dareu.workflow.library_settings import quiet_libraries

    container: Any = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    order = json.loads(base64.urlsafe_b64decode(container.pop("job")))
    end_with_parent(order["parent"])
    console = Console(log_file=Path(order["log"]) if order["log"] else None)
    module, _, name = order["function"].partition(":")
    result: dict[str, Any] = {}
    failed, exit_code, passing = None, 0, False
    start = time.perf_counter()
    try:
        with quiet_libraries():
            work: Work = getattr(importlib.import_module(module), name)
            chosen = [str(o) for o in HydraConfig.get().overrides.task]
            work(parse(with_recommended(container, chosen)), order["about"], result, console)
    except Exception as error:  # a bug or a full memory stops one job, and not the others
        failed, exit_code, passing = (
            reason_of(error),
            getattr(error, "exit_code", 1),
            not isinstance(error, LASTING),
        )
        if isinstance(error, DareuError):
            result["cure"] = error.cure
        else:
            traceback.print_exc()
    return Outcome(order["title"], failed, exit_code, passing, time.perf_counter() - start, result)


def end_with_parent(parent: int, look: float = 0.5) -> None:
    """End this process soon after its parent has ended, where `parent` is that: a worker outlives no killed command."""
    if os.getpid() == parent or os.getppid() != parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(look)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
