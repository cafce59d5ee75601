"""A log of one model in our records, whatever layout its file has; and how our own files are read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dareu.errors import DataError, RunError
from dareu.evaluation.metrics.base import number
from dareu.evaluation.results import FILE, Results


@dataclass
class Log:
    """What was read.

    Attributes:
        path: where from.
        layout: "dareu", "open-unlearning" or "tofu".
        records: one a sample, with the fields of `dareu.evaluation.suite`; fields that the layout has not are absent.
        truth_ratio: the layout's own definition of the truth ratio.
        logged: section of the file → the figure that it names.
        unread: sections of the file that were not understood.
        data_key: content key of the data, where the log names it.
        retrained_key: content key of the retrained model that stood beside the log's, where the log names it.
    """

    path: Path
    layout: str
    records: list[dict[str, Any]]
    truth_ratio: str
    logged: dict[str, float] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    data_key: str | None = None
    retrained_key: str | None = None

    def of(self, name: str) -> list[dict[str, Any]]:
        """The records of one set."""
        return [r for r in self.records if r["set"] == name]


def finite_list(value: Any) -> list[float] | None:
    """A list of finite numbers (one number is a list of one); None where one is not finite, or there is none."""
    values = [number(v) for v in (value if isinstance(value, list) else [value])]
    kept = [v for v in values if v is not None]
    return kept if kept and len(kept) == len(values) else None


def place(index: str) -> int | str:
    """A number for an index that is one."""
    return int(index) if index.isascii() and index.isdigit() else index


def text(value: Any) -> str | None:
    """The string; None for anything else."""
    return value if isinstance(value, str) else None


def rows_of(path: Path, name: str, section: Any) -> dict[str, Mapping[str, Any]]:
    """Index → row of a section.

    Raises:
        DataError: Its rows are no objects by index.
    """
    if not isinstance(section, Mapping) or not all(
        row is None or isinstance(row, Mapping) for row in section.values()
    ):
        raise DataError(f"{path}: {name} holds no rows by index.", "Give a log as the evaluation wrote it.")
    return {str(index): row for index, row in section.items() if row is not None}


# A loss below 0 or a share above 1 by so much is the rounding of a type of numbers.
ROUNDING = 1e-3
LOSSES = ("nll", "paraphrased_nll", "wrong_nlls", "truth_ratio")
SHARES = (
    "probability", "probability_normalised", "rouge_l", "rouge_l_f1", "exact_memorisation", "extraction_strength",
    "knowmem", "verbmem",
)  # fmt: skip


def check_ranges(log: Log) -> None:
    """Check that no figure of a sample is impossible.

    Raises:
        DataError: A mean loss or a truth ratio is below 0, or a share is not between 0 and 1; the sample is named.
    """
    for record in log.records:
        for names, most, said in (
            (LOSSES, float("inf"), "is at least 0"),
            (SHARES, 1.0, "lies between 0 and 1"),
        ):
            for name in names:
                values = record.get(name)
                for value in values if isinstance(values, list) else [values]:
                    if (found := number(value)) is not None and not -ROUNDING <= found <= most + ROUNDING:
                        raise DataError(
                            f"{log.path}: {record['set']} sample {record['index']} has {name} {found:g}, which {said}.",
                            "Give a log as the evaluation wrote it: mean losses a token (not log-likelihoods), shares "
                            "between 0 and 1.",
                        )


def read_own(path: Path, model: str = "unlearned") -> Log:
    """The records in a JSON lines file, or those of `model` in a run folder.

    Raises:
        RunError: where there are no such records.
        DataError: for a line that is no record.
    """
    file = path / "samples" / f"{model}.jsonl" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise RunError(
            f"{path} is not the folder of a finished run: it has no samples/{model}.jsonl.",
            "Give a run folder, or a log of one model.",
        )
    try:
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")  # U+2028 ends no line
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{file} cannot be read: {error}.", "Give a run folder, or a log of one model."
        ) from None
    records = []
    for n, line in enumerate(lines, start=1):
        record = _object(line)
        if record is None or not {"set", "index"} <= set(record):
            raise DataError(
                f"Line {n} of {file} is no record of an evaluation (it needs `set` and `index`).",
                "Give samples/<model>.jsonl of a run folder, or a log of open-unlearning or TOFU.",
            )
        records.append(record)
    results = _results(file)
    truth_ratio = "geometric"
    if results is not None:  # before the key existed, the mean was the arithmetic one
        truth_ratio = results.definitions.get("truth_ratio", "arithmetic")
    log = Log(file, "dareu", records, truth_ratio)
    if results is not None:
        log.data_key, log.retrained_key = results.data_key, results.model_keys.get("retrained")
    return log


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
