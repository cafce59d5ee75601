"""The loss-based methods, in one visible dictionary. A new one costs a pure loss, a row here, a YAML and a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal

from torch import Tensor

from dareu.config import Strict
from dareu.errors import ConfigError, nearest
from dareu.methods import losses, procedures
from dareu.methods.settings import AlternatingSettings, DualSettings, HiddenSettings


@dataclass(frozen=True)
class LossMethod:
    """A row: the loss, the tensors it reads, and the data it walks through.

    `reads` names the keyword arguments that the trainer has to provide, of `logps`, `mask`, `logits`, `labels`,
    `reference_logps`, `reference_logits`; a reference model is loaded only where one of the last two is named.
    `trainer` is a row of `methods.trainers.TRAINERS`, `settings` the keys of `method.params` that it reads, `retains`
    the retain terms that go with it (`own`: one of its own).
    """

    loss: Callable[..., Tensor]
    reads: tuple[str, ...] = ("logps", "mask")
    walks: Literal["forget", "retain"] = "forget"
    trainer: str = "plain"
    settings: type[Strict] | None = None
    retains: tuple[str, ...] | None = None  # None: any but `own`

    @property
    def needs_reference(self) -> bool:
        return any(name.startswith("reference") for name in self.reads)


METHODS: dict[str, LossMethod] = {
    "nll": LossMethod(losses.nll, walks="retain"),
    "gradient_ascent": LossMethod(losses.gradient_ascent),
    "npo": LossMethod(losses.npo, reads=("logps", "mask", "reference_logps")),
    "rmu": LossMethod(
        procedures.squared_distance,
        reads=("activations", "target", "mask"),
        trainer="hidden",
        settings=HiddenSettings,
        retains=("own", "nll", "kl", "none"),
    ),
    "pdu": LossMethod(
        procedures.logit_margin,
        reads=("logits", "mask"),
        trainer="dual",
        settings=DualSettings,
        retains=("nll", "kl"),
    ),
    "scrub": LossMethod(
        procedures.divergence_ascent,
        reads=("logits", "reference_logits", "mask"),
        trainer="alternating",
        settings=AlternatingSettings,
        retains=("own",),
    ),
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
