"""A command and its process: signals, streams, several processes, the words that a failure ends with."""

import argparse
import codecs
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any

from dareu.errors import ConfigError, RunError
from dareu.runs import ranks

PAUSE = 3.0  # seconds between a failure of several processes and their end
RESEND = 0.05  # seconds until a signal that Python dropped is sent again
# Signs of ours that a terminal may lack. Names and texts of the data keep their letters' numbers.
PLAIN = {
    "✓": "ok", "✗": "failed:", "…": "...", "–": "-", "−": "-", "─": "-", "→": "->", "←": "<-", "±": "+-", "×": "x",
    "≥": ">=", "≤": "<=", "·": ".", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


def check_working_directory() -> None:
    """Check that the working directory is there.

    Raises:
        RunError: It has been deleted.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise RunError(
            "The folder in which this command was started has been deleted.", "Change into one that exists."
        ) from None


def failed(code: int, cause: str, cure: str = "") -> int:
    """Say why the command ends; of several processes one says it."""
    if ranks.speaks():
        print(f"dareu: {cause}", file=sys.stderr)
        if cure:
            print(f"       {cure}", file=sys.stderr)
    if ranks.world_size() > 1:  # the first to end ends the others, who have to ask before
        time.sleep(PAUSE)
    if ranks.connected():  # an ordinary end would wait for collective calls that nobody answers
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def one_of_several(args: argparse.Namespace, shared: Sequence[str]) -> Iterator[None]:
    """Where torchrun or `accelerate launch` started several processes: connect them; the first one prints."""
    if ranks.world_size() == 1:
        yield
        return
    if args.command not in shared or getattr(args, "multirun", False):
        raise ConfigError(
            f"`dareu {args.command}{' -m' if args.command in shared else ''}` is one process; this one was started as "
            "one of several.",
            "Start it without torchrun or accelerate launch.",
        )
    from dareu.workflow.validate import connected

    # torch says at each training that all parameters are used.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with ExitStack() as stack:
        stack.enter_context(connected())
        if not ranks.is_main():
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
        yield


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM as an exception, so that locks are released and a message is printed.

    Python drops an exception in a `__del__` or a callback, where a signal may well arrive: regular expressions of the
    tokenizers delete many objects. SIGTERM and SIGINT are then sent once more.
    """

    def end(*_: object) -> None:
        raise Terminated

    def dropped(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        again = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
        timer = threading.Timer(RESEND, os.kill, (os.getpid(), again))  # in here it would be dropped too
        timer.daemon = True
        timer.start()

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        yield
        return
    report, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGTERM, before)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks: those of `PLAIN`, else their numbers."""
    assert isinstance(error, UnicodeEncodeError)
    lacked = error.object[error.start : error.end]
    return "".join(PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in lacked), error.end


def printable_streams() -> None:
    """Signs that the terminal's encoding lacks are replaced by what it has, not an error."""
    codecs.register_error("plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8" and hasattr(
            stream, "reconfigure"
        ):
            stream.reconfigure(errors="plainly")


def print_json(tree: object) -> None:
    """A result as JSON."""
    print(json.dumps(tree, ensure_ascii=False, indent=2, default=str))


def print_result(args: argparse.Namespace, tree: Any, show: Callable[[Any], None]) -> int:
    """The result of a command, as JSON or by `show`."""
    print_json(tree) if args.json else show(tree)
    return 0
