"""One method's trials in Optuna: what to try next, and how each trial ended.

Optuna's journal, a file of the results folder to which every process may add, is the only memory of trials: a trial's
position among its method's trials is a user attribute of the trial, how it ended one of the study.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dareu.tuning.search_space import Setting

ATTEMPTS = 20  # proposals in search of a setting that was not tried before, in a space that may have no other
POSITION = "position"


def open_storage(path: Path) -> Any:
    """Optuna's journal: a text file that is only added to, so that a killed process loses nothing."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return JournalStorage(JournalFileBackend(str(path)))


@dataclass(frozen=True)
class Trial:
    """One trial of a method.

    Attributes:
        position: 0 is the defaults.
        number: Optuna's own, which changes when a trial is tried again.
        setting: What is tried.
        ended: Whether it is known how it ended.
        outcome: `objective` (None where it failed), `failed` (the reason), `passing` (whether another attempt may
            end well), `seconds`, `unlearn_seconds`, `figures`; empty before the end.
    """

    position: int
    number: int
    setting: Setting
    ended: bool
    outcome: Mapping[str, Any] = field(default_factory=dict)

    @property
    def objective(self) -> float | None:
        return self.outcome.get("objective")


def best(trials: list[Trial]) -> Trial | None:
    """The trial with the highest objective, the first of equals: the defaults where nothing was better."""
    scored = [t for t in trials if t.objective is not None]
    return max(scored, key=lambda t: (t.objective, -t.position), default=None)


class Search:
    """The trials of one method.

    Each proposal is drawn by a sampler of its own, seeded by `seed`, the study's name and the position. So it depends
    only on the trials that had ended before its batch: not on how many processes ran them, nor on an interruption.
    """

    def __init__(
        self, storage: Any, name: str, space: dict[str, Any], defaults: Setting, seed: int, batch: int
    ) -> None:
        import optuna

        self.name = name
        self._space, self._defaults, self._seed, self._batch = space, defaults, seed, batch
        self._study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        for trial in self._study.get_trials(deepcopy=False):
            if POSITION in trial.user_attrs and trial.state.name == "WAITING":
                # Killed before it was tried again.
                self._study.ask(self._space)
            elif POSITION not in trial.user_attrs and trial.state.name == "RUNNING":
                # Killed while it was drawn.
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def trials(self) -> list[Trial]:
        """In the order of their positions; of several attempts the last."""
        outcomes = self._study.user_attrs
        trials: dict[int, Trial] = {}
        for t in self._study.get_trials(deepcopy=False):
            if POSITION in t.user_attrs and t.params:
                ended = t.state.is_finished()
                trials[t.user_attrs[POSITION]] = Trial(
                    position=t.user_attrs[POSITION],
                    number=t.number,
                    setting={k: t.params[k] for k in self._space},
                    ended=ended,
                    outcome=outcomes.get(str(t.number), {}) if ended else {},
                )
        return [trials[position] for position in sorted(trials)]

    def propose(self, count: int) -> list[Trial]:
        """Draw until there are `count` trials, and give all of them."""
        known = self.trials()
        for position in range(len(known), count):
            self._ask(position, [t.setting for t in known])
            known = self.trials()
        return known

    def _ask(self, position: int, tried: list[Setting]) -> None:
        import optuna

        for attempt in range(ATTEMPTS):
            if position == 0:
                self._study.enqueue_trial(self._defaults, skip_if_exists=True)
            digest = hashlib.sha256(f"{self._seed}/{self.name}/{position}/{attempt}".encode()).digest()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.sampler = optuna.samplers.TPESampler(
                    seed=int.from_bytes(digest[:4], "big"),
                    n_startup_trials=self._batch,
                    multivariate=True,
                    constant_liar=True,  # trials of one batch keep away from each other
                )
            trial = self._study.ask(self._space)
            if {k: trial.params[k] for k in self._space} in tried and attempt + 1 < ATTEMPTS:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            trial.set_user_attr(POSITION, position)
            return

    def try_again(self) -> None:
        """Open every trial anew that failed for a reason that may have passed, such as a full disk."""
        for trial in self.trials():
            if trial.ended and trial.outcome.get("passing"):
                self._study.enqueue_trial(trial.setting, user_attrs={POSITION: trial.position})
                self._study.ask(self._space)

    def record(self, number: int, outcome: Mapping[str, Any]) -> None:
        """Record how the trial with Optuna's `number` ended."""
        _record(self._study, number, outcome)


def record(journal: Path, name: str, number: int, outcome: Mapping[str, Any]) -> None:
    """Record how a trial of the study `name` ended; from any process that can write to the journal."""
    import optuna

    _record(optuna.load_study(study_name=name, storage=open_storage(journal)), number, outcome)


def _record(study: Any, number: int, outcome: Mapping[str, Any]) -> None:
    """A trial without a figure counts as worse than all others, so that TPE keeps away from it. One whose reason may
    pass gets the state FAIL, which the sampler does not read."""
    from optuna.trial import TrialState

    study.set_user_attr(str(number), dict(outcome))
    if outcome.get("objective") is not None:
        study.tell(number, outcome["objective"])
    else:
        study.tell(number, state=TrialState.FAIL if outcome.get("passing") else TrialState.PRUNED)
