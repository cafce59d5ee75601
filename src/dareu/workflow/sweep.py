"""`dareu train -m`: one run for each combination of values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from dareu.config import RunConfig
from dareu.config.compose import check_overrides, compose, split_hydra
from dareu.errors import ConfigError
from dareu.workflow.console import Console
from dareu.workflow.experiment import train
from dareu.workflow.jobs import Job, Outcome, job_launcher, launcher_files


def sweep(overrides: Sequence[str], config_dir: str | None = None) -> list[Outcome]:
    """Run the grid. The outcome of each run, in the order of the grid; its `result` has the `run_dir`.

    `run_dir=PATH` is the folder of the run folders.

    Raises:
        ConfigError: One of the runs cannot be composed. Told before any of them starts.
        RunError: A job's process is gone, without an outcome.
    """
    check_overrides(overrides, config_dir, sweep=True)
    own, hydra = split_hydra(overrides)
    runs = grid(own)
    configs = [compose(one, config_dir) for one in runs]
    common = set(runs[0]).intersection(*runs)
    jobs = []
    for one in runs:
        title = " ".join(o.lstrip("+") for o in one if len(runs) == 1 or o not in common)
        jobs.append(Job("dareu.workflow.sweep:run", one, title, {"title": title}))
    with (
        launcher_files(hydra, Path(configs[0].run_dir or "runs").expanduser()) as files,
        job_launcher(hydra, config_dir, files) as launch,
    ):
        return launch(jobs)


def run(config: RunConfig, about: dict[str, Any], result: dict[str, Any], console: Console) -> None:
    """One run of a sweep."""
    console.print(f"[bold]{escape(about['title'])}[/]")
    try:
        train(
            config,
            console=console,
            under=config.run_dir,
            opened=lambda path: result.update(run_dir=str(path)),
        )
    except Exception as error:
        console.print(f"[red]✗ {escape(str(error) or type(error).__name__)}[/]")
        raise


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every run, as Hydra's own sweeper makes them.

    Raises:
        ConfigError: For an interval, of which there is no list of values.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"'{override.input_line}' names an interval.",
                "A sweep takes choice(…), range(…) or a,b,c; `dareu tune` searches intervals.",
            )
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(one) for one in batch]
