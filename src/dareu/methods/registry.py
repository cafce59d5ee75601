"""The loss-based methods, in one visible dictionary. A new one costs a pure loss, a row here, a YAML and a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal

from torch import Tensor

from dareu.config import Strict
from dareu.errors import ConfigError, nearest
from dareu.methods import divergence, losses, preference, procedures, token_losses
from dareu.methods.settings import AlternatingSettings, DualSettings, HiddenSettings


@dataclass(frozen=True)
class LossMethod:
    """A row: the loss, the tensors it reads, and the data it walks through.

    `reads` names the keyword arguments that the trainer has to provide, of `logps`, `mask`, `logits`, `labels`,
    `reference_logps`, `reference_logits`; a reference model is loaded only where one of the last two is named. Each of
    the six with `other_` before it is that of a second response to the same prompts; `pairs` says which: a refusal, or
    an alternate answer that the original model gave. What is not named is not computed.
    `trainer` is a row of `methods.trainers.TRAINERS`, `settings` the keys of `method.params` that it reads, `retains`
    the retain terms that go with it (`own`: one of its own).
    """

    loss: Callable[..., Tensor]
    reads: tuple[str, ...] = ("logps", "mask")
    walks: Literal["forget", "retain"] = "forget"
    pairs: Literal["refusal", "alternate"] | None = None
    trainer: str = "plain"
    settings: type[Strict] | None = None
    retains: tuple[str, ...] | None = None  # None: any but `own`

    @property
    def needs_reference(self) -> bool:
        return any(name.removeprefix("other_").startswith("reference") for name in self.reads)


_DPO = (
    "logps", "mask", "reference_logps", "other_logps", "other_mask", "other_reference_logps"
)  # fmt: skip


METHODS: dict[str, LossMethod] = {
    "nll": LossMethod(losses.nll, walks="retain"),
    "gradient_ascent": LossMethod(losses.gradient_ascent),
    "npo": LossMethod(losses.npo, reads=("logps", "mask", "reference_logps")),
    "simnpo": LossMethod(preference.simnpo),
    "idk_sft": LossMethod(preference.refusal_nll, reads=("other_logps", "other_mask"), pairs="refusal"),
    "idk_dpo": LossMethod(preference.dpo, reads=_DPO, pairs="refusal"),
    "altpo": LossMethod(preference.dpo, reads=_DPO, pairs="alternate"),
    "undial": LossMethod(token_losses.undial, reads=("logits", "labels", "mask", "reference_logits")),
    "wga": LossMethod(token_losses.wga),
    "satimp": LossMethod(token_losses.satimp),
    "ceu": LossMethod(token_losses.ceu, reads=("logits", "labels", "mask")),
    "jensun": LossMethod(divergence.jensun, reads=("other_logps", "other_mask"), pairs="refusal"),
    "flat": LossMethod(
        divergence.flat, reads=("logps", "mask", "other_logps", "other_mask"), pairs="refusal"
    ),
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


def needs_reference(row: LossMethod, retain: str) -> bool:
    """Whether the loss or the retain term reads the original model; nobody else has it loaded."""
    return row.needs_reference or retain in ("kl", "js", "own")


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
