"""Files that are whole or not there: written beside their place, flushed to disk, then renamed."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dareu.errors import DareuError, RunError

OF_TORCH = ("PytorchStreamWriter failed", "] . unexpected pos", "iostream error")
TOO_LARGE = ("File too large", "os error 27")
FULL = ("No space left on device", "os error 28", "Disk quota exceeded", *OF_TORCH)
NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "failed to map segment",
)  # of CUDA, of the CPU, of the CPU on Windows, of the system, of the loader of libraries


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, which holds the old content or the new one, never a part.

    Folders above it are made.

    Raises:
        RunError: It cannot be written.
    """
    path = Path(path)
    partial = path.parent / f".{path.name}.{os.getpid()}.tmp"
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as JSON. Floats keep every digit; NaN and infinities, which JSON has not, become null."""
    write_text(path, json_text(obj))


def json_text(obj: Any) -> str:
    """`obj` as `write_json` writes it."""
    return json.dumps(_plain(obj), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line; NaN and infinities become null."""
    write_text(path, "".join(_line(row) for row in rows))


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote.

    Raises:
        RunError: The file is missing or is not JSON.
    """
    return _parse(path, "JSON", json.loads)


def read_jsonl(path: str | Path) -> list[Any]:
    """What `write_jsonl` wrote, a value a line.

    Raises:
        RunError: The file is missing or is not JSON lines.
    """
    # Not splitlines(): it also splits at U+2028 and others, which may stand inside a JSON string.
    rows: list[Any] = _parse(
        path, "JSON lines", lambda text: [json.loads(line) for line in text.split("\n") if line.strip()]
    )
    return rows


def _parse(path: str | Path, what: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror}.", "Check the folder's name and its rights."
        ) from None
    except ValueError as error:
        raise RunError(
            f"{path} is not {what}: {error}.",
            "If a command wrote it, delete it: the same command makes it again. Else give another file.",
        ) from None


def check_writable(path: Path, what: str = "The folder", cure: str = "Give another run_dir.") -> None:
    """Check that `path`, or the nearest folder above it that exists, can be written to.

    Raises:
        RunError: It cannot.
    """
    nearest = path.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise RunError(f"{what} {path} cannot be made: {nearest} is a file.", cure)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"{what} {path} cannot be written to: no right to write in {nearest}.", cure)


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Within it what the system refuses to write is the error of `unwritable`."""
    try:
        yield
    except OSError as error:
        raise unwritable(place, error) from None


def unwritable(path: Path, error: OSError) -> RunError:
    """The error for a place that cannot be written to."""
    if full := disk_full(error, path):
        return full
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        there = next(place for place in (path, *path.parents) if os.path.lexists(place))
        if not there.exists():
            return RunError(
                f"{path} cannot be written: {there} is a link that leads nowhere.",
                "Make its target, or delete it.",
            )
        what = "folder" if there.is_dir() else "file"
        return RunError(f"{path} cannot be written: {there} is a {what}.", f"Move that {what} away.")
    return RunError(
        f"{path} cannot be written: {error.strerror or error}.",
        "Give a folder that you may write to.",
    )


def disk_full(error: BaseException, place: Path) -> RunError | None:
    """What to say where `error`, or what it was raised from, means that a disk is full or a file too large for it; None
    where it means neither, and where `error` is a message of our own, which names its place.

    safetensors and torch have errors of their own for it, which say so in their text alone.
    """
    seen = None if isinstance(error, DareuError) else error
    while seen is not None:
        number = getattr(seen, "errno", None)
        text = str(seen)
        if number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in FULL):
            return RunError(
                f"The disk is full: nothing more can be written to {_target(seen) or place}.",
                "Make room, or choose another folder; a run goes on from its last checkpoint when its command is given "
                "again.",
            )
        if number == errno.EFBIG or any(sign in text for sign in TOO_LARGE):
            return RunError(
                f"A file at {_target(seen) or place} is larger than the file system or `ulimit -f` allows.",
                "Choose another folder, or raise the limit; a run goes on from its last checkpoint when its command is "
                "given again.",
            )
        seen = seen.__cause__ or seen.__context__
    return None


def _target(error: BaseException) -> Any:
    """The file that `error` says could not be written; of a copy the second of its two, None where it says none."""
    # Of a folder: rows of (from, to, reason).
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        return error.args[0][0][1]
    return getattr(error, "filename2", None) or getattr(error, "filename", None)


def out_of_memory(error: BaseException, what: str = "this process", keys: str = "") -> RunError | None:
    """What to say where `error`, or what it was raised from, means that memory is used up; None where it means none.

    Args:
        what: What was under way.
        keys: The configuration keys that lower what it takes; none: the limit of the process is named.
    """
    seen: BaseException | None = error
    while seen is not None:
        told = not isinstance(seen, DareuError) and any(sign in str(seen) for sign in NO_MEMORY)
        if isinstance(seen, MemoryError) or told:
            cure = (
                f"Lower {keys}; model.gradient_checkpointing=true and model.dtype=bfloat16 take less as well. "
                "`dareu train --dry-run` estimates each part. The same command goes on from the last checkpoint."
            )
            limit = "Free memory, or raise the limit of this process (`ulimit -v`, the batch system's)."
            return RunError(f"There is not enough memory for {what}.", cure if keys else limit)
        seen = seen.__cause__ or seen.__context__
    return None


def _line(row: Any) -> str:
    return json.dumps(_plain(row), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(obj: Any) -> Any:
    """`obj` in JSON's own types; numbers and arrays of NumPy and PyTorch by their `tolist`."""
    if isinstance(obj, BaseModel):
        return _plain(obj.model_dump(mode="json"))
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "tolist"):
        return _plain(obj.tolist())
    return obj
