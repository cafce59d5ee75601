"""Sentences that decline to answer: a list of our own, or the user's file."""

from collections.abc import Iterable
from pathlib import Path

from dareu.data.readers import read_text
from dareu.errors import DataError

OWN = Path(__file__).with_name("refusals.txt")
SHORT = "I'm I've I'd don't doesn't didn't can't couldn't haven't hasn't isn't won't"  # others' refusals have them


def load_refusals(path: str | None = None, key: str = "method.refusals") -> list[str]:
    """The refusals in `path`, one a line, empty lines and repeated ones left out; without a path our own.

    Raises:
        DataError: The file is missing, not UTF-8, or without a sentence.
    """
    try:
        lines = read_text(path or OWN).splitlines()
    except DataError as error:
        raise DataError(f"{key}: {error.cause}", error.cure) from None
    refusals = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not refusals:
        raise DataError(f"The file {path} ({key}) holds no sentence.", "Write one refusal a line.")
    return refusals


def refusals_known(files: Iterable[str | None] = ()) -> list[str]:
    """Texts with the words that refusals are made of, whatever the corpus holds: our own, and those of `files`."""
    return [SHORT, *load_refusals(), *(line for path in files if path for line in load_refusals(path))]
