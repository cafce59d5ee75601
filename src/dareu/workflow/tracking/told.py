"""What a tracker has been told, kept in the run folder: which run it is there, and every row.

A tracker writes late, so that a kill loses its newest rows; a line here is with the system at once.
"""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "tracked.jsonl"


class Told:
    """A line of JSON for each row, beside the run's key. A line that a kill has cut does not count.

    Attributes:
        key: Of the run in the tracker, the same at every attempt.
        resumed: Whether an earlier attempt began that run.
        rows: (curve, step, values) that earlier attempts told, in their order.
        steps: Curve → the last step of it in `rows`.
        count: How many rows were told, by all attempts.
    """

    def __init__(self, folder: Path, tracker: str) -> None:
        self._path, self._tracker = folder / FILE, tracker
        lines = self._read()
        keys = [line["key"] for line in lines if line.get("tracker") == tracker]
        self.key: str = keys[0] if keys else uuid.uuid4().hex[:12]
        self.resumed = bool(keys)
        self.rows = [(line["curve"], line["step"], line["values"]) for line in lines if "curve" in line]
        self.steps: dict[str, int] = {curve: step for curve, step, _ in self.rows}
        self.count = len(self.rows)

    def begun(self) -> None:
        """Keep the key of a new run."""
        if not self.resumed:
            self._append(tracker=self._tracker, key=self.key)

    def add(self, curve: str, step: int, values: Mapping[str, Any]) -> None:
        """Keep a row that was told."""
        self._append(curve=curve, step=step, values=dict(values))
        self.count += 1

    def _append(self, **line: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=float) + "\n")

    def _read(self) -> list[dict[str, Any]]:
        found = []
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found
