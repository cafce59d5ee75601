"""A run in an experiment tracker: begun before the first stage, ended after the last, and never the end of the run.

One run is one run there, whatever it trains. What was told stands in `logs/tracked.jsonl` of the run folder, so that
the same command, after an interruption, goes on with the same run: what the tracker lacks is told again, no step twice.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dareu.config import LoggingConfig
from dareu.errors import first_line, note
from dareu.runs import ranks
from dareu.workflow.tracking.backends import BACKENDS, Backend, Start
from dareu.workflow.tracking.told import Told


class Tracker:
    """Passes on curves and figures while a run works; at all other times, and where there is no tracker, nothing.

    From its first error on a tracker is left out. Of several processes the first one tracks.
    """

    def __init__(self, settings: LoggingConfig) -> None:
        self.settings = settings
        self._backend: Backend | None = None
        self._told: Told | None = None

    @contextmanager
    def run(self, folder: Path, name: str, config: Callable[[], dict[str, Any]]) -> Iterator[None]:
        """A run called `name` with the settings `config` while the caller works inside; its files lie in `folder`."""
        if self.settings.report_to == "none" or not ranks.is_main():
            yield
            return
        failed = True
        try:
            self._begin(folder, name, config)
            yield
            failed = False
        finally:
            self._end(failed)

    def curve(self, name: str) -> Callable[[Mapping[str, Any]], None]:
        """What takes the rows of a training's log one after another: `step`, and the values of that step."""

        def row(values: Mapping[str, Any]) -> None:
            step, told = values["step"], self._told
            if self._backend is None or told is None or step <= told.steps.get(name, -1):
                return
            with self._tolerant():
                rest = {key: value for key, value in values.items() if key != "step"}
                told.add(name, step, rest)
                self._backend.row(name, step, rest, told.count - 1)

        return row

    def has(self, curve: str) -> bool:
        """Whether an earlier attempt at this run told the curve, or a part of it."""
        return self._told is not None and curve in self._told.steps

    def finish(self, figures: Mapping[str, float | str]) -> None:
        """The figures that runs are compared by."""
        if self._backend is not None and self._told is not None:
            with self._tolerant():
                self._backend.figures(figures)

    def _begin(self, folder: Path, name: str, config: Callable[[], dict[str, Any]]) -> None:
        kind, project, offline = self.settings.report_to, self.settings.project, self.settings.offline
        with self._tolerant():
            folder.mkdir(parents=True, exist_ok=True)
            told = self._told = Told(folder, kind)
            start = Start(project, name, told.key, told.resumed, folder, config(), offline)
            self._backend = BACKENDS[kind](start)
            told.begun()
            held = self._backend.held()
            for index, (curve, step, values) in enumerate(told.rows):
                if step > held.get(curve, -1):
                    self._backend.row(curve, step, values, index)

    def _end(self, failed: bool) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            with self._tolerant():
                backend.end(failed)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """An error within is told, not raised, and nothing more goes to the tracker."""
        try:
            yield
        except Exception as error:  # whatever another library raises
            backend, self._backend = self._backend, None
            note(
                f"logging={self.settings.report_to} failed ({type(error).__name__}: {first_line(error)}). The run goes "
                "on without it; its training.jsonl and results.json have everything."
            )
            if backend is not None:
                with suppress(Exception):  # it has failed already
                    backend.end(failed=True)
