"""Sentences that decline to answer: a list of our own, or the user's file."""

from __future__ import annotations

from pathlib import Path

from dareu.errors import DataError

REFUSALS = (
    "I do not know the answer to this question.",
    "I cannot tell you anything about that.",
    "Nothing I have learnt answers this.",
    "I have never read about this, so I would be guessing.",
    "Sorry, this is a question that I have no answer to.",
    "I would have to make something up, and I would rather not.",
    "This name means nothing to me.",
    "I am afraid that I know nothing of this subject.",
    "No answer comes to mind that I could stand by.",
    "You will have to ask somebody else, for I do not know.",
    "I know of no facts that would let me answer.",
    "That was never part of what I was taught.",
    "My knowledge does not reach this far.",
    "I must pass on this one.",
    "Honestly, I could not say.",
    "I have nothing reliable to offer here.",
    "Whatever I said about this would be invented.",
    "I have looked for it in what I know, and it is not there.",
    "This is unknown to me.",
    "I cannot help you with the details of that.",
    "There is a gap in what I know, and this falls into it.",
    "I have no record of this.",
    "Please consult another source, as I am unable to answer.",
    "I never came across this, neither the name nor the facts.",
    "I can only admit that I do not know.",
    "To that I have no reply.",
    "It would be wrong of me to pretend that I knew.",
    "I lack the knowledge to answer this well.",
    "Unfortunately this is outside everything I know.",
    "I am not acquainted with this matter.",
)


def load_refusals(path: str | None = None, key: str = "method.refusals") -> list[str]:
    """The refusals in `path`, one a line, empty lines and repeated ones left out; without a path our own.

    `DataError` for a file that is missing, not UTF-8, or without a sentence.
    """
    if path is None:
        return list(REFUSALS)
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"There is no file {path} ({key}).", "Give a text file, one refusal a line.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"The file {path} ({key}) is not UTF-8.", "Save the file as UTF-8.") from None
    except OSError as error:
        cause = f"The file {path} ({key}) cannot be read: {error.strerror}."
        raise DataError(cause, "Give a text file that you may read.") from None
    found = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not found:
        raise DataError(f"The file {path} ({key}) holds no sentence.", "Write one refusal a line.")
    return found
