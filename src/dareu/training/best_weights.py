"""The best weights of a training run, by a score on samples that are not reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dareu.models.passes import evaluating
from dareu.runs.files import read_json, write_json
from dareu.runs.ranks import is_main
from dareu.training.early_stopping import GoodWeights


class BestWeights:
    """Scores a policy every so many optimizer steps, and keeps the weights that scored best.

    Both outlive a kill: `best.safetensors` and `best.json` lie in the work folder.

    Args:
        folder: The work folder.
        every: Optimizer steps between two evaluations.
        score: Policy → figures to note, the `score` among them; higher is better.
    """

    def __init__(self, folder: Path, every: int, score: Callable[[Any], dict[str, float]]) -> None:
        self.every, self.score = every, score
        self.kept, self.note = GoodWeights(folder / "best.safetensors"), folder / "best.json"
        self.rows: list[dict[str, Any]] = read_json(self.note) if self.note.is_file() else []

    def step(self, policy: Any, step: int) -> None:
        """Evaluate where the step is due and has not been evaluated before the run was interrupted."""
        if step % self.every == 0 and all(row["step"] != step for row in self.rows):
            self._look(policy, {"step": step})

    def finish(self, policy: Any, step: int) -> dict[str, Any]:
        """Evaluate the last weights too, and put the best back into `policy`. Of equal ones the earliest are best.

        Returns:
            `step` and `score` of the weights that `policy` has now, and all `evaluations`.
        """
        self.rows = [row for row in self.rows if not row.get("last")]  # of a run that was cut off here
        self._look(policy, {"step": step, "last": True})
        best = self._best()
        if not best.get("last"):
            self.kept.restore(policy)
        return {"step": best["step"], "score": best["score"], "evaluations": self.rows}

    def _look(self, policy: Any, about: dict[str, Any]) -> None:
        with evaluating(policy):
            row = about | self.score(policy)
        self.rows.append(row)
        if is_main():
            if self._best() is row and not row.get("last"):
                self.kept.keep(policy)
            write_json(self.note, self.rows)

    def _best(self) -> dict[str, Any]:
        return max(self.rows, key=lambda row: row["score"])
