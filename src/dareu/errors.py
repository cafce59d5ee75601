"""Errors a person can act on. The command line prints them without a stack trace, exit code 2."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# What acts on a terminal: control characters but tab and line feed, and marks that reorder what is shown.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with what acts on a terminal spelt out, such as `\\u001b`: data is shown, and never obeyed."""
    return _ACTIVE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def note(text: str) -> None:
    """Say on stderr what is no failure; the reason of one begins with `dareu:` in place of `!`."""
    print(f"! {printable(text)}", file=sys.stderr)


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line without a full stop: its first, and the next after a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return said.rstrip(".")


class DareuError(Exception):
    """A mistake of the user's: `cause` says what is wrong, `cure` says what to do."""

    exit_code = 2

    def __init__(self, cause: str, cure: str = "") -> None:
        self.cause = printable(cause)  # both quote the user's data
        self.cure = printable(cure)
        super().__init__(f"{self.cause} {self.cure}".strip())

    def __reduce__(self) -> tuple[type[DareuError], tuple[str, str]]:
        return type(self), (self.cause, self.cure)  # for another process


class ConfigError(DareuError):
    """A key, a value or a combination of them that the configuration does not allow."""


class DataError(DareuError):
    """A corpus, a file or a forget split that cannot be used."""


class ModelError(DareuError):
    """A model or tokenizer that cannot be loaded or used."""


class RunError(DareuError):
    """A run folder or an artifact store that cannot be used."""


class TrainingError(DareuError):
    """Training that cannot go on, such as a loss that is no longer finite."""

    exit_code = 3


def check_folder(
    path: str | Path, cure: str, error: type[DareuError] = RunError, what: str = "folder"
) -> Path:
    """`path` as a folder that exists; an `error`, which says whether a file stands there or nothing, if it does not."""
    folder = Path(path)
    if not folder.is_dir():
        raise error(
            f"{path} is a file, not a {what}." if folder.exists() else f"There is no {what} {path}.", cure
        )
    return folder


def expect(fits: bool, argument: str, value: object, wanted: str) -> None:
    """Check an argument of a call from Python.

    Raises:
        ConfigError: It does not fit; the message says what came.
    """
    if not fits:
        shown = " ".join(repr(value).split())
        shown = f"{shown[:60]}…" if len(shown) > 60 else shown
        raise ConfigError(f"{argument} is {shown}, of the type {type(value).__name__}.", f"Give {wanted}.")


def texts_of(value: Any, argument: str, wanted: str) -> list[str]:
    """One text or several as a list.

    Raises:
        ConfigError: It is anything else; the message names the argument and the item.
    """
    several = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
    expect(several, argument, value, wanted)
    listed = [value] if isinstance(value, str) else list(value)
    for i, item in enumerate(listed):
        expect(isinstance(item, str), f"{argument}[{i}]", item, wanted)
    return listed


def require(package: str, what: str, extra: str) -> None:
    """Check that a package of one of our extras is installed, which `what` needs.

    Raises:
        ConfigError: It is not.
    """
    if find_spec(package) is None:
        raise ConfigError(f"{what} needs a package that is not installed.", f"pip install 'dareu[{extra}]'")


def reason_of(error: BaseException) -> str:
    """The cause of an error of ours, else its type and what it says."""
    return error.cause if isinstance(error, DareuError) else f"{type(error).__name__}: {error}"


def listed(names: Iterable[str], most: int) -> str:
    """The first few of `names`, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """A clause naming the entries of `known` nearest to `name`, or all of them if they are few."""
    names = [str(k) for k in known]
    folded = [one.casefold() for one in names]
    close = difflib.get_close_matches(str(name).casefold(), list(dict.fromkeys(folded)), n=n, cutoff=0.5)
    if close:
        spelt = [names[i] for one in close for i, other in enumerate(folded) if other == one]
        return "Nearest: " + ", ".join(dict.fromkeys(spelt)) + "."
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"Known: {shown}." if names else ""
