"""wandb, trackio and TensorBoard behind one interface. Each library is imported where it is chosen.

Curves are called `<curve>/<value>` ("original/loss"), figures `results/<path in results.json>` with slashes between its
keys, since trackers group names by them.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dareu.config.tables import leaves


@dataclass(frozen=True)
class Start:
    """How a tracker's run begins.

    Attributes:
        project, name: What the tracker calls them.
        key: Of the run, the same at each attempt.
        resumed: Whether an earlier attempt began it.
        folder: Where files go.
        config: The run's settings, nested.
        offline: Send nothing to other machines.
    """

    project: str
    name: str
    key: str
    resumed: bool
    folder: Path
    config: dict[str, Any]
    offline: bool


class Backend(Protocol):
    """A run of a tracker that is open."""

    def held(self) -> Mapping[str, int]:
        """Curve → its last step that earlier attempts have brought to where it is kept. The others are told again."""

    def row(self, curve: str, step: int, values: Mapping[str, Any], index: int) -> None:
        """Values of a step; `index`: which row of the run it is, of all curves and attempts."""

    def figures(self, figures: Mapping[str, float | str]) -> None:
        """The figures at the end, by name."""

    def end(self, failed: bool) -> None:
        """Close the run."""


class Wandb:
    """A run of Weights & Biases beside any that the user has open in the same process.

    It records neither the command line nor what is printed: both may name those who are to be forgotten. Offline each
    attempt writes the whole run into a folder of its own, and that of the attempt before is deleted.
    """

    def __init__(self, start: Start) -> None:
        import wandb

        for folder in (start.folder / "wandb").glob(f"offline-run-*-{start.key}"):
            shutil.rmtree(folder)
        self._run = wandb.init(
            project=start.project,
            name=start.name,
            id=start.key,
            resume="allow",
            dir=str(start.folder),
            config=start.config,
            mode="offline" if start.offline else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_meta=True),
        )
        self._curves: set[str] = set()

    def held(self) -> Mapping[str, int]:
        """What the server knows; nothing offline."""
        known = {str(key): self._run.summary.get(key) for key in self._run.summary.keys()}  # noqa: SIM118
        steps = {key.removesuffix("/step"): step for key, step in known.items() if key.endswith("/step")}
        return {curve: int(step) for curve, step in steps.items() if isinstance(step, int | float)}

    def row(self, curve: str, step: int, values: Mapping[str, Any], index: int) -> None:
        if curve not in self._curves:  # each training counts its own steps
            self._curves.add(curve)
            self._run.define_metric(f"{curve}/step")
            self._run.define_metric(f"{curve}/*", step_metric=f"{curve}/step")
        named = {f"{curve}/{key}": value for key, value in values.items()}
        self._run.log(named | {f"{curve}/step": step}, step=index)

    def figures(self, figures: Mapping[str, float | str]) -> None:
        self._run.summary.update({f"results/{name}": value for name, value in figures.items()})

    def end(self, failed: bool) -> None:
        import wandb

        self._run.finish(exit_code=int(failed))
        if wandb.run is None:  # no run of the user's is open
            wandb.teardown()  # its service may hold the run's id a moment longer, and the next attempt has the same


class Trackio:
    """A run in trackio's database. It has no summary: the figures are its last row."""

    def __init__(self, start: Start) -> None:
        import trackio

        self._start = start
        with _stdout_kept(), _stays_here(start.offline):
            self._run = trackio.init(
                project=start.project,
                name=start.name,
                config={key: value for key, value in leaves(start.config) if value is not None},
                resume="allow" if start.resumed else "never",
                embed=False,
            )
        self._finish: Callable[[], None] = trackio.finish

    def held(self) -> Mapping[str, int]:
        """What the database on this machine has."""
        from trackio.sqlite_storage import SQLiteStorage

        if not self._start.resumed:
            return {}
        held: dict[str, int] = {}
        for row in SQLiteStorage.get_logs(self._start.project, self._start.name, run_id=self._run.id):
            for curve in {key.rpartition("/")[0] for key in row if "/" in key}:
                held[curve] = max(row["step"], held.get(curve, -1))
        return held

    def row(self, curve: str, step: int, values: Mapping[str, Any], index: int) -> None:
        self._run.log({f"{curve}/{key}": value for key, value in values.items()}, step=step)

    def figures(self, figures: Mapping[str, float | str]) -> None:
        self._run.log({f"results/{name}": value for name, value in figures.items()})

    def end(self, failed: bool) -> None:
        with _stdout_kept():
            self._finish()


class TensorBoard:
    """Event files; settings and figures also stand in its tab HPARAMS, which ranks the runs below a folder."""

    def __init__(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # It is told everything again: what files of earlier attempts hold from step 0 on does not count.
        again = {"purge_step": 0} if start.resumed else {}
        self._writer = SummaryWriter(log_dir=str(start.folder), **again)
        self._config = dict(leaves(start.config))
        self._text("config", start.config)

    def held(self) -> Mapping[str, int]:
        return {}

    def row(self, curve: str, step: int, values: Mapping[str, Any], index: int) -> None:
        for key, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{curve}/{key}", value, step)
        self._writer.flush()

    def figures(self, figures: Mapping[str, float | str]) -> None:
        from torch.utils.tensorboard.summary import hparams

        numbers = {f"results/{k}": float(v) for k, v in figures.items() if not isinstance(v, str)}
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, 0)
        self._text("results", dict(figures))
        known = {key: value for key, value in self._config.items() if value is not None}
        plain = {k: v if isinstance(v, str | bool | int | float) else json.dumps(v) for k, v in known.items()}
        for summary in hparams(plain, numbers):
            self._writer._get_file_writer().add_summary(summary)
        self._writer.flush()

    def end(self, failed: bool) -> None:
        self._writer.close()

    def _text(self, name: str, tree: Any) -> None:
        """A tree as a block of JSON."""
        block = "\n".join(
            f"    {line}" for line in json.dumps(tree, indent=2, ensure_ascii=False).splitlines()
        )
        self._writer.add_text(name, block)


BACKENDS: dict[str, Callable[[Start], Backend]] = {
    "wandb": Wandb,
    "trackio": Trackio,
    "tensorboard": TensorBoard,
}


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """trackio prints, and `--json` has stdout for itself."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def _stays_here(offline: bool) -> Iterator[None]:
    """Where `offline`, trackio does not see the server that the environment names."""
    names = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL") if offline else ()
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
