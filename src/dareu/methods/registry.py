"""The loss-based methods, in one visible dictionary. A new one costs a pure loss, a row here, a YAML and a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal

from torch import Tensor

from dareu.errors import ConfigError, nearest
from dareu.methods import losses


@dataclass(frozen=True)
class LossMethod:
    """A row: the loss, the tensors it reads, and the data it walks through.

    `reads` names the keyword arguments that the trainer has to provide, of `logps`, `mask`, `logits`, `labels`,
    `reference_logps`, `reference_logits`; a reference model is loaded only where one of the last two is named.
    """

    loss: Callable[..., Tensor]
    reads: tuple[str, ...] = ("logps", "mask")
    walks: Literal["forget", "retain"] = "forget"

    @property
    def needs_reference(self) -> bool:
        return any(name.startswith("reference") for name in self.reads)


METHODS: dict[str, LossMethod] = {
    "nll": LossMethod(losses.nll, walks="retain"),
    "gradient_ascent": LossMethod(losses.gradient_ascent),
    "npo": LossMethod(losses.npo, reads=("logps", "mask", "reference_logps")),
}


def find_method(name: str) -> LossMethod:
    """The row called `name`, here or in the entry points `dareu.methods` of other packages."""
    if name in METHODS:
        return METHODS[name]
    external: dict[str, Any] = {e.name: e for e in entry_points(group="dareu.methods")}
    if name in external:
        row = external[name].load()
        if isinstance(row, LossMethod):
            return row
        raise ConfigError(
            f"The entry point '{name}' of dareu.methods is no LossMethod but {type(row).__name__}.",
            "It has to name a dareu.methods.registry.LossMethod.",
        )
    raise ConfigError(f"There is no loss '{name}'.", nearest(name, [*METHODS, *external]))
