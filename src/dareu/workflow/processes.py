"""The processes of one command, connected while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def connected() -> Iterator[None]:
    """Connect the processes that torchrun or `accelerate launch` started; they part where the command ends well.

    After a failure the connection stays until the process has said why, and ends with it.
    """
    from dareu.models.processes import connect, disconnect

    connect()
    yield
    disconnect()
