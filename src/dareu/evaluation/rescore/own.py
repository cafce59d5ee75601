"""Our own records: `samples/<model>.jsonl` of a run folder."""

import json
from pathlib import Path
from typing import Any

from dareu.errors import DataError, RunError
from dareu.evaluation.rescore.log import Log
from dareu.evaluation.results import FILE, Results

MODELS = ("unlearned", "retrained", "original")


def read(path: Path, model: str = "unlearned") -> Log:
    """The records in a JSON lines file, or those of `model` in a run folder.

    Raises:
        RunError: where there are no such records.
        DataError: for a line that is no record.
    """
    file = path / "samples" / f"{model}.jsonl" if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")  # U+2028 ends no line
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{file} cannot be read: {error}.", "Give a run folder, or a log of one model."
        ) from None
    records = []
    for number, line in enumerate(lines, start=1):
        record = _object(line)
        if record is None or not {"set", "index"} <= set(record):
            raise DataError(
                f"Line {number} of {file} is no record of an evaluation (it needs `set` and `index`).",
                "Give samples/<model>.jsonl of a run folder, or a log of open-unlearning or TOFU.",
            )
        records.append(record)
    results = _results(file)
    truth_ratio = "geometric"
    if results is not None:  # before the key existed, the mean was the arithmetic one
        truth_ratio = results.definitions.get("truth_ratio", "arithmetic")
    return Log(file, "dareu", records, truth_ratio, data_key=results.data_key if results else None)


def _object(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _results(file: Path) -> Results | None:
    """The results of the run folder that the records lie in."""
    where = file.parent.parent / FILE
    return Results.read(where) if where.is_file() else None
