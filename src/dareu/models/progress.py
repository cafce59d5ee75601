"""A progress bar that stays quiet where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from tqdm.auto import tqdm
from transformers import TrainerCallback

T = TypeVar("T")


def track(items: Sequence[T], description: str | None) -> Iterable[T]:
    """`items` with a bar named `description`; no bar where that is None. The bar goes when it is done."""
    if description is None:
        return items
    return tqdm(items, desc=description, leave=False, dynamic_ncols=True, delay=2)


class StepBar(TrainerCallback):
    """A trainer's bar over optimizer steps, in place of its own, which prints every log line too."""

    def __init__(self, description: str | None) -> None:
        self.description = description
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.description is not None and state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=self.description,
                leave=False,
                dynamic_ncols=True,
                delay=1,
                mininterval=0.5,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Called by whoever ends training early, too."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
