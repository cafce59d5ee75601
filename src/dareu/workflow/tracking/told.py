"""What has been told a tracker, kept in the run folder: which run it is there, and how far each curve has come."""

import json
import uuid
from pathlib import Path
from typing import Any

FILE = "tracked.jsonl"


class Told:
    """A line of JSON for each row that was told, beside the run's key. A line that a kill has cut does not count.

    Attributes:
        key: Of the run in the tracker, the same at every attempt.
        resumed: Whether an earlier attempt began that run.
        steps: Curve → the last step that earlier attempts told.
        rows: How many rows were told, by all attempts.
    """

    def __init__(self, folder: Path, tracker: str) -> None:
        self._path, self._tracker = folder / FILE, tracker
        lines = [line for line in self._read() if line.get("tracker") == tracker]
        keys = [line["key"] for line in lines if "key" in line]
        rows = [line for line in lines if "curve" in line]
        self.key: str = keys[0] if keys else uuid.uuid4().hex[:12]
        self.resumed = bool(keys)
        self.steps: dict[str, int] = {line["curve"]: line["step"] for line in rows}
        self.rows = len(rows)

    def begun(self) -> None:
        """Keep the key of a new run."""
        if not self.resumed:
            self._append(key=self.key)

    def add(self, curve: str, step: int) -> None:
        """Keep that a row was told."""
        self._append(curve=curve, step=step)
        self.rows += 1

    def _append(self, **line: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"tracker": self._tracker, **line}) + "\n")

    def _read(self) -> list[dict[str, Any]]:
        found = []
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found
