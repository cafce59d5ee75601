"""Jobs by a launcher of Hydra: one after the other in this process, or whatever plugin the command names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dareu.config.compose import explain, hydra_started

QUIET = (
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.output_subdir=null",
    "hydra.sweep.subdir=.",
    "hydra.job.chdir=false",
)
Launch = Callable[[Sequence[Sequence[str]]], list[Any]]


@contextmanager
def launcher(
    task: Callable[[Any], Any], hydra: Sequence[str], config_dir: str | None, folder: Path
) -> Iterator[Launch]:
    """A function that runs `task` on the composed config of each list of overrides, and gives what it returned.

    `hydra`: overrides such as `hydra/launcher=joblib`. `folder`: where a launcher may put files of its own.
    `ConfigError` for a launcher that does not exist; an error of a task is raised once all have run.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.types import HydraContext, RunMode
    from omegaconf.errors import OmegaConfBaseException

    search = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    own = [*QUIET, f"hydra.sweep.dir='{folder.absolute()}'", *search, *hydra]
    with hydra_started():
        current: Any = GlobalHydra.instance().hydra
        try:
            config = current.compose_config("train", own, RunMode.MULTIRUN)
            context = HydraContext(config_loader=current.config_loader, callbacks=_callbacks(config))
            made = Plugins.instance().instantiate_launcher(
                hydra_context=context, task_function=task, config=config
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise explain(error) from None
        count = 0

        def launch(jobs: Sequence[Sequence[str]]) -> list[Any]:
            nonlocal count
            done = made.launch([list(job) for job in jobs], count) if jobs else []
            count += len(jobs)
            return [one.return_value for one in done]

        yield launch


def _callbacks(config: Any) -> Any:
    from hydra._internal.callbacks import Callbacks

    return Callbacks(config)
