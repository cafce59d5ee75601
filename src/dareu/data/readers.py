"""Rows of a user's file, each with the place it came from; every error says where and what to do."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dareu.errors import DataError, nearest

POINTER = b"version https://git-lfs"


class Row(NamedTuple):
    """One row: column → value, and where it stands ("line 7 of letters.jsonl")."""

    where: str
    values: dict[str, Any]


def read_rows(path: str) -> list[Row]:
    """The rows of a JSON Lines, JSON, CSV, TSV or Parquet file, chosen by its extension; never empty.

    Relative paths count from the working directory.

    Raises:
        DataError: The file is missing, empty, broken or of another kind.
    """
    file = find_file(path)
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} has the unknown extension '{file.suffix}'.", f"Use one of {', '.join(READERS)}."
        )
    with file.open("rb") as head:
        if head.read(len(POINTER)) == POINTER:
            raise DataError(
                f"{path} was not downloaded: it is a pointer to the real file.",
                "Run `git lfs pull` in its folder, or download it with `hf download`.",
            )
    rows = reader(file)
    if not rows:
        raise DataError(f"{path} is empty: it holds no row.", "Give a file with one sample a row.")
    return rows


def find_file(path: str) -> Path:
    """`path` as an existing file.

    Raises:
        DataError: There is none; the message has the nearest names in its folder.
    """
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise DataError(f"{path} is a folder.", "Give the file in it.")
    if file.exists():
        raise DataError(f"{path} is a device or a pipe.", "Save what it gives as a file.")
    here = "" if file.is_absolute() else f" It counts from the working directory, {Path.cwd()}."
    if not file.parent.is_dir():
        raise DataError(
            f"There is no file {path}: the folder {file.parent} does not exist.", f"Check the path.{here}"
        )
    beside = sorted(p.name for p in file.parent.iterdir() if p.is_file())
    raise DataError(f"There is no file {path}.", f"{nearest(file.name, beside) or 'Check the path.'}{here}")


def read_text(path: str | Path) -> str:
    """A UTF-8 file's text without byte order mark.

    Raises:
        DataError: The file is missing, unreadable or not UTF-8.
    """
    file = find_file(str(path))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", "Check the file's permissions."
        ) from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}, line {line}.",
            "Save the file as UTF-8.",
        ) from None


def _json_lines(file: Path) -> list[Row]:
    rows = []
    # Not splitlines(): it also splits at U+2028 and others, which may stand inside a JSON string.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if line.strip():
            where = f"line {number} of {file.name}"
            rows.append(_object(where, _parse(line, where)))
    return rows


def _json(file: Path) -> list[Row]:
    """A JSON array of objects, or JSON Lines under the name .json."""
    text = read_text(file)
    if not text.lstrip().startswith("["):
        _check_no_object(text, file.name)
        return _json_lines(file)
    items = _parse(text, file.name)
    return [_object(f"item {n} of {file.name}", item) for n, item in enumerate(items, start=1)]


def _check_no_object(text: str, name: str) -> None:
    """Check that JSON is a list of rows.

    Raises:
        DataError: It is one object over several lines, or one of lists: {"data": […]}, {"prompt": […], …}.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(tree, dict) and ("\n" in text.strip() or all(isinstance(v, list) for v in tree.values())):
        raise DataError(
            f"{name} is one JSON object with {', '.join(list(tree)[:5])}, not a list of rows.",
            "Write a list with one object a sample, or one object a line.",
        )


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise DataError(
            f"Broken JSON in {where}: {error.msg} at {place}.", "Write one whole JSON object a line."
        ) from None
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, endless nesting
        raise DataError(f"Broken JSON in {where}: {error}.", "Write one whole JSON object a line.") from None


def _object(where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise DataError(
            f"{where[0].upper()}{where[1:]} is not a JSON object: {json.dumps(value)[:60]}.",
            'Write each sample as {"column": "value", ...}.',
        )
    return Row(where, value)


def _csv(file: Path) -> list[Row]:
    text = read_text(file)
    delimiter = "\t" if file.suffix.lower() == ".tsv" else _delimiter(text)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the default refuses fields beyond 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    start = 1  # the line that the row begins on; a quoted value may span several
    try:
        for cells in reader:
            where, start = f"line {start} of {file.name}", reader.line_num + 1
            if not any(cell.strip() for cell in cells) or (header is None and cells == ["sep=", ""]):
                continue  # the second is a line of Excel's own, which names the separator
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    raise DataError(
                        f"{file.name} names a column twice: {', '.join(header)}.", "Rename one of them."
                    )
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{where[0].upper()}{where[1:]} has {len(cells)} values for {len(header)} columns.",
                    "Put values that hold a separator or a line break in double quotes.",
                )
            rows.append(Row(where, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise DataError(
            f"Broken CSV in line {start} of {file.name}: {error}.", "Check its double quotes."
        ) from None
    return rows


def _delimiter(text: str) -> str:
    """What a CSV file is separated by: a comma, or what stands in a header without one, as Excel writes in Europe."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    if first.startswith("sep="):
        return first[4:5] or ","
    return next((sign for sign in (",", ";", "\t") if sign in first), ",")


def _parquet(file: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
        items, labels = table.to_pylist(), _class_names(table.schema.metadata or {})
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataError(f"{file} is not a readable Parquet file: {error}", "Write it anew.") from None
    return [Row(f"row {n} of {file.name}", with_names(item, labels)) for n, item in enumerate(items, start=1)]


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column → names of its classes, where `datasets` wrote the file with `ClassLabel` columns."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(one) for one in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def with_names(values: dict[str, Any], labels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """`values` with the names of classes in place of their numbers; -1, which `datasets` uses for "none", is None."""
    for column, names in labels.items():
        number = values.get(column)
        if isinstance(number, int):
            values = {**values, column: names[number] if 0 <= number < len(names) else None}
    return values


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
