"""The run of a logger (wandb, TensorBoard, trackio) around a training: ended with it, and never the end of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from dareu.errors import first_line, note


class Tolerant:
    """A logger's callback that is left out from its first error on.

    The Trainer asks it for events by name (`on_log`, …). What is not logged stands in `training.jsonl` all the same.
    """

    def __init__(self, callback: Any, name: str) -> None:
        self.callback, self.name, self.failed = callback, name, False

    def __getattr__(self, event: str) -> Callable[..., Any]:
        if not event.startswith("on_"):
            raise AttributeError(event)
        handle = getattr(self.callback, event)

        def tolerant(*args: Any, **kwargs: Any) -> Any:
            if self.failed:
                return None
            try:
                return handle(*args, **kwargs)
            except Exception as error:  # whatever another library raises
                self.failed = True
                _tell(self.name, error)
                return None

        return tolerant


def tolerate(trainer: Any, name: str) -> None:
    """Leave the logger `name` out of the training from its first error on; `none`: there is none."""
    if name == "none":
        return
    from transformers.integrations import get_reporting_integration_callbacks

    kinds, handler = tuple(get_reporting_integration_callbacks([name])), trainer.callback_handler
    handler.callbacks = [Tolerant(one, name) if isinstance(one, kinds) else one for one in handler.callbacks]


@contextmanager
def logger_run(name: str) -> Iterator[None]:
    """End the run that training began, where `name` is wandb or trackio, else the next run of a sweep would write into
    it.
    """
    if name == "trackio":
        import trackio

        current = trackio.context_vars.current_run
        before = current.get()
        with redirect_stdout(sys.stderr):  # it prints, and `--json` has stdout for itself
            try:
                yield
            finally:
                if current.get() not in (None, before):
                    with _telling(name):
                        trackio.finish()
        return
    if name != "wandb":
        yield
        return
    import wandb

    before = wandb.run
    try:
        yield
    finally:
        with _telling(name):
            if wandb.run is not None and wandb.run is not before:
                wandb.finish()
            if before is None:
                wandb.teardown()  # it reads its folder from the environment once a process: the next run has its own


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """An error within is told, not raised."""
    try:
        yield
    except Exception as error:  # whatever another library raises
        _tell(name, error)


def _tell(name: str, error: Exception) -> None:
    note(
        f"logging={name} failed ({type(error).__name__}: {first_line(error)}). The run goes on without it; its "
        "training.jsonl has the whole log."
    )
