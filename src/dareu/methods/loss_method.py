"""Methods that minimise a loss: forget_weight · forget term + retain_weight · retain term."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dareu.config import LossMethodConfig, RunConfig
from dareu.config.params import check_names, read_settings
from dareu.data.corpus import Sample, Split, Task
from dareu.data.refusals import load_refusals
from dareu.data.render import Encoded, encode
from dareu.errors import ConfigError
from dareu.methods.base import Method, MethodContext
from dareu.training.loss_spec import LossSpec, needs_reference

if TYPE_CHECKING:
    from dareu.training.losses import SoftTargets

# What stands beside a forget answer → the losses that read it, for messages.
PAIRED = {"refusal": "idk_sft, idk_dpo, jensun, flat", "alternate": "altpo"}


@dataclass(frozen=True)
class LossMethod(LossSpec, Method):
    """The registry row of a method that is a loss; see `LossSpec` for its fields."""

    engine: ClassVar[str | None] = "dareu.training.loss_trainer"

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        if split is None:
            check_loss(self, settings_of(config))

    def key(self, config: RunConfig, stage_key: Callable[[str], str]) -> dict[str, Any]:
        # What the refusals say, not where they lie.
        refusals = settings_of(config).refusals
        return {"refusals": load_refusals(refusals)} if self.pairs == "refusal" else {}

    def rows(self, config: RunConfig, forget: Sequence[Sample], tokenizer: Any, task: Task) -> list[Encoded]:
        return [row for refusals in refusals_for(self, config, forget, tokenizer, task) for row in refusals]

    def shares_weights(self) -> bool:
        return self.trainer is None

    def samples(self, split: Split) -> Sequence[Sample]:
        """What training walks through."""
        forget, retain = split.forget, split.retain
        return {"forget": forget, "retain": retain, "both": forget + retain}[self.walks]

    def passed_once(self, config: RunConfig, blocks: int) -> int:
        """How many of the lowest of `blocks` blocks the rows pass once, with what comes out kept for all epochs."""
        return 0

    def others(self, context: MethodContext) -> list[list[Encoded]]:
        """For each forget row the responses that stand beside it; none where the loss reads none.

        `context.policy` is still the original model.
        """
        return refusals_for(
            self, context.config, context.split.forget, context.tokenizer, context.corpus.task
        )

    def targets(self, context: MethodContext) -> Sequence[SoftTargets]:
        """The soft target of each of `samples`; none where the loss reads none. `context.policy` is the original."""
        return ()

    def run(self, context: MethodContext) -> dict[str, Any]:
        from dareu.models.load import freeze_original
        from dareu.training.loss_trainer import train_with_loss

        method, work = settings_of(context.config), context.work
        targets = self.targets(context)
        reads = needs_reference(self, method.retain, method.scrambled_batch_size)
        reference = freeze_original(context.policy) if reads else None
        others = self.others(context)
        train_with_loss(
            context.policy,
            context.tokenizer,
            method=self,
            optim=method.optim,
            rows=context.encode(self.samples(context.split)),
            retain_rows=context.encode(context.split.retain),
            retain=method.retain,
            retain_batch_size=method.retain_batch_size,
            scrambled_batch_size=method.scrambled_batch_size,
            scrambled_weight=method.scrambled_weight,
            params=method.params,
            forget_weight=method.forget_weight,
            retain_weight=method.retain_weight,
            reference=reference,
            others=others,
            targets=targets,
            seed=context.config.seed,
            device=context.device,
            work=work,
        )
        return {"steps": work.log[-1]["step"] if work.log else 0, "stopped": None}


def settings_of(config: RunConfig) -> LossMethodConfig:
    """`config.method` of a method that is a loss."""
    assert isinstance(config.method, LossMethodConfig)
    return config.method


def refusals_for(
    row: LossSpec, config: RunConfig, forget: Sequence[Sample], tokenizer: Any, task: Task
) -> list[list[Encoded]]:
    """Every refusal as a response to every forget prompt; nothing for a method that reads none.

    Raises:
        DataError: For a file that cannot be used, and where a refusal is longer than `model.max_length` allows.
    """
    if row.pairs != "refusal":
        return []
    length = config.model.max_length
    texts = load_refusals(settings_of(config).refusals)
    said = [encode(tokenizer, forget[0].prompt, text, task, length).response_ids for text in texts]
    longest = max(range(len(said)), key=lambda i: len(said[i]))
    rows = [encode(tokenizer, s.prompt, texts[longest], task, length) for s in forget]
    return [[Encoded(row.prompt_ids, ids) for ids in said] for row in rows]


def check_loss(row: LossSpec, method: LossMethodConfig) -> None:
    """The keys fit the loss: `method.params` are its own, and it reads what else is set.

    Raises:
        ConfigError: Otherwise.
    """
    for key, kind in (("refusals", "refusal"), ("alternates", "alternate")):
        if getattr(method, key) is not None and row.pairs != kind:
            raise ConfigError(
                f"The loss '{method.loss}' does not use {key} (method.{key}).",
                f"Leave it out. Losses that do: {PAIRED[kind]}.",
            )
    if method.scrambled_batch_size and method.retain not in ("nll", "kl", "js"):
        raise ConfigError(
            f"method.scrambled_batch_size={method.scrambled_batch_size} with method.retain={method.retain}: rows of "
            "random words stand beside retain rows, and this retain term reads none.",
            "Set method.retain=nll, kl or js, or method.scrambled_batch_size=0.",
        )
    retains = row.retains or ("none", "nll", "kl", "js")
    if method.retain not in retains:
        raise ConfigError(
            f"The loss '{method.loss}' does not go with method.retain={method.retain}.",
            f"Set method.retain={' or '.join(retains)}.",
        )
    known = {n: p for n, p in inspect.signature(row.loss).parameters.items() if n not in row.reads}
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    own = row.settings.model_fields if row.settings else {}
    check_names(f"loss '{method.loss}'", "method.params", method.params, [*known, *own])
    if row.settings:
        read_settings(row.settings, method.params)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in method.params:
            raise ConfigError(f"The loss '{method.loss}' needs method.params.{name}.", "Set it.")
    _check_values(method, row.loss)


def _check_values(method: LossMethodConfig, loss: Any) -> None:
    """Each of `method.params` is what the loss's type hint allows; a loss without hints takes anything."""
    hints = get_type_hints(loss, include_extras=True)
    for name, value in method.params.items():
        try:
            read = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            raise ConfigError(
                f"'method.params.{name}' of the loss '{method.loss}': {error.errors()[0]['msg']} (got {value!r}).",
                f"Change method.params.{name}.",
            ) from None
        if isinstance(value, str) and not isinstance(read, str):  # the loss gets the value as it was written
            raise ConfigError(
                f"'method.params.{name}' of the loss '{method.loss}': no text is needed (got {value!r}).",
                f"Write it without quotes: method.params.{name}={value}.",
            )
