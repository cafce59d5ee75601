"""One method's trials in Optuna: what to try next, as a function of what has ended. Kept in a file of the folder."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
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
class Proposal:
    """The trial at `position` (0 is the defaults), its setting, and whether Optuna knows how it ended."""

    position: int
    setting: Setting
    told: bool


class Search:
    """Proposals of one method.

    Each is drawn by a sampler of its own, seeded by `seed`, the study's name and the position. So it depends only
    on the trials that had ended before its batch: not on how many processes ran them, nor on an interruption.
    """

    def __init__(
        self, storage: Any, name: str, space: dict[str, Any], defaults: Setting, seed: int, batch: int
    ) -> None:
        import optuna

        self._space, self._defaults, self._seed, self._batch = space, defaults, seed, batch
        self._name = name
        self._study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )
        for trial in self._study.get_trials(deepcopy=False):
            if (
                trial.state.name == "RUNNING" and POSITION not in trial.user_attrs
            ):  # killed while it was drawn
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def proposals(self) -> list[Proposal]:
        """In the order of their positions."""
        found = [
            t
            for t in self._study.get_trials(deepcopy=False)
            if POSITION in t.user_attrs and t.state.name != "FAIL"
        ]
        made = [
            Proposal(t.user_attrs[POSITION], {k: t.params[k] for k in self._space}, t.state.is_finished())
            for t in found
        ]
        return sorted(made, key=lambda p: p.position)

    def propose(self, count: int) -> list[Proposal]:
        """Draw until there are `count` proposals, and give all of them."""
        known = self.proposals()
        for position in range(len(known), count):
            self._ask(position, [p.setting for p in known])
            known = self.proposals()
        return known

    def _ask(self, position: int, tried: list[Setting]) -> None:
        import optuna

        for attempt in range(ATTEMPTS):
            if position == 0:
                self._study.enqueue_trial(self._defaults, skip_if_exists=True)
            digest = hashlib.sha256(f"{self._seed}/{self._name}/{position}/{attempt}".encode()).digest()
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

    def tell(self, position: int, objective: float | None) -> None:
        """How a trial ended. One without a figure counts as worse than all others, so that TPE keeps away from it;
        Optuna's own state FAIL would be forgotten by the sampler.
        """
        from optuna.trial import TrialState

        [number] = [
            t.number
            for t in self._study.get_trials(deepcopy=False)
            if t.user_attrs.get(POSITION) == position and t.state.name == "RUNNING"
        ]
        if objective is None:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, objective)
