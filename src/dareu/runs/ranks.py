"""The processes of one run, as torchrun and `accelerate launch` start them: every one runs the same code (SPMD).

Process 0 alone looks at what the disk holds and writes to it; the others are told what it saw (`on_main`) and wait for
it. Work that can be cut up is shared out and gathered in order (`share_out`). With one process both are plain calls.
No torch here: `models.processes` sets the channel over which processes talk.
"""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from dareu.errors import RunError

S = TypeVar("S")
T = TypeVar("T")
LOST = "Another process of this run has ended."
GOES_ON = "The same command continues from here."
# What a collective call says whose other end is gone.
SIGNS = ("Connection closed by peer", "Connection reset", "Broken pipe", "gloo", "NCCL", "Socket", "TCPStore")


class Channel(Protocol):
    """What connects the processes."""

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, by rank. Waits for all of them."""

    def first(self) -> bool:
        """Whether this process is the first one to call it."""


_channel: Channel | None = None
_alone = False  # inside `on_main`: this process acts for all of them


def world_size() -> int:
    """How many processes work together; 1 inside `on_main`."""
    return 1 if _alone else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return 0 if _alone else int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is process 0, the one that writes."""
    return rank() == 0


def connected() -> bool:
    return _channel is not None


def connect(channel: Channel | None) -> None:
    """Set the channel; None takes it away."""
    global _channel
    _channel = channel


def gather(value: T) -> list[T]:
    """`value` of every process, by rank; all processes have to call it."""
    if world_size() == 1:
        return [value]
    if _channel is None:
        raise RuntimeError("the processes of this run are not connected (dareu.models.processes.connect)")
    return _channel.gather(value)


def barrier() -> None:
    """Wait for all processes."""
    gather(None)


def on_main(function: Callable[[], T]) -> T:
    """What `function` gives on process 0, which alone calls it; an exception there is raised on all.

    Inside it there is one process: it may read and write, and must not train with the others.
    """
    if world_size() == 1:
        return function()
    own = None
    if is_main():
        with _acting_alone():
            own = _attempt(function)
    theirs = gather(_sendable(own))[0]
    result, failure = own or theirs
    if failure is not None:
        raise failure
    return result  # type: ignore[no-any-return]


def share_out(
    items: Sequence[S],
    function: Callable[[S], T],
    through: Callable[[Sequence[S]], Iterable[S]] = lambda items: items,
) -> list[T]:
    """`function` of each item, in order; each process computes every world-th of them.

    An exception in one process is raised in all. All processes have to call it with the same items.

    Args:
        through: Takes a process's own items and gives them one by one, such as a progress bar.
    """
    world = world_size()
    if world == 1:
        return [function(item) for item in through(items)]
    own = _attempt(lambda: [function(item) for item in through(items[rank() :: world])])
    parts = gather((len(items), _sendable(own)))
    if len({count for count, _ in parts}) != 1:
        raise RuntimeError(f"processes share out different work: {[count for count, _ in parts]} items")
    for number, (_, (_, failure)) in enumerate(parts):
        if failure is not None:
            raise own[1] if number == rank() else failure
    result: list[Any] = [None] * len(items)
    for number, (_, (results, _)) in enumerate(parts):
        result[number::world] = results
    return result


def lost_peer(error: BaseException) -> bool:
    """Whether `error` is that of a process that waited for another which has ended."""
    return world_size() > 1 and isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def speaks() -> bool:
    """Whether this process is the one to report a failure: the first one to ask."""
    if world_size() == 1:
        return True
    try:
        return _channel.first() if _channel is not None else is_main()
    except RuntimeError:  # process 0, which counts, is gone
        return True


@contextmanager
def _acting_alone() -> Iterator[None]:
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def _attempt(function: Callable[[], Any]) -> tuple[Any, Any]:
    """(result, None), or (None, the exception)."""
    try:
        return function(), None
    except Exception as error:
        return None, error


def _sendable(outcome: Any) -> Any:
    """(result, error) as another process can read it: an exception that cannot be pickled becomes its text."""
    if outcome is None or outcome[1] is None:
        return outcome
    try:
        pickle.loads(pickle.dumps(outcome[1]))
        return outcome
    except Exception:  # whatever an exception class does when it is pickled
        return None, RunError(f"{type(outcome[1]).__name__}: {outcome[1]}", GOES_ON)
