"""What can be told of a run before it starts: packages, device, method, folders. Nothing is written here."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from dareu.config import DareUConfig, LossMethodConfig, RunConfig
from dareu.data.corpus import Split
from dareu.errors import ConfigError, nearest
from dareu.workflow.alternates import check_truths
from dareu.workflow.prepare import check_model_folder


def check_run(config: RunConfig) -> None:
    """`ConfigError` or `ModelError` for whatever would otherwise end the run after minutes of work."""
    from dareu.models.load import pick_device

    pick_device(config.device)
    _check_processes()
    _check_logger(config)
    if isinstance(config.method, LossMethodConfig):
        _check_loss(config.method)
        check_blocks(config)
    elif isinstance(config.method, DareUConfig) and config.method.use_vllm and find_spec("vllm") is None:
        raise ConfigError(
            "method.use_vllm=true needs a package that is not installed.", "pip install 'dareu[vllm]'"
        )
    if config.attributor.backbone.path:
        check_model_folder(config.attributor.backbone.path)


def check_split(config: RunConfig, split: Split) -> None:
    """`ConfigError` or `DataError` where the forget set does not fit the method."""
    if isinstance(config.method, DareUConfig):
        from dareu.data.boundary_prompts import retain_count
        from dareu.training.common import rollout_batch

        added = retain_count(len(split.forget), len(split.retain), config.method.retain_prompts.share)
        rollout_batch(config.method, len(split.forget) + added)
    elif isinstance(config.method, LossMethodConfig):
        check_truths(config.method, split)


def _check_logger(config: RunConfig) -> None:
    name = config.logging.report_to
    if name != "none" and find_spec(name) is None:
        raise ConfigError(
            f"logging={name} needs a package that is not installed.", f"pip install 'dareu[{name}]'"
        )


def _check_loss(method: LossMethodConfig) -> None:
    """The loss exists, its own parameters are those that `method.params` names, and it reads what else is given."""
    from dareu.methods.registry import METHODS, find_method

    row = find_method(method.loss)
    for key, kind in (("refusals", "refusal"), ("alternates", "alternate")):
        if getattr(method, key) is not None and row.pairs != kind:
            others = [name for name, other in METHODS.items() if other.pairs == kind]
            raise ConfigError(
                f"The loss '{method.loss}' reads no {key} (method.{key}).",
                f"Leave it out. Losses that do: {', '.join(others)}.",
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
    for name in method.params:
        if name not in known and name not in own:
            raise ConfigError(
                f"The loss '{method.loss}' has no parameter '{name}' (method.params).",
                nearest(name, [*known, *own]) or "It has none.",
            )
    if row.settings:
        from dareu.methods.settings import read_settings

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
            TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            raise ConfigError(
                f"'method.params.{name}' of the loss '{method.loss}': {error.errors()[0]['msg']} (got {value!r}).",
                f"Change method.params.{name}.",
            ) from None


def check_blocks(config: RunConfig) -> None:
    """`ConfigError` where the model has no such layer or module as a method on activations names."""
    from dareu.methods.registry import find_method

    method = config.method
    if not isinstance(method, LossMethodConfig) or find_method(method.loss).trainer != "hidden":
        return
    from dareu.methods.rmu import chosen_parameters
    from dareu.methods.settings import HiddenSettings, read_settings
    from dareu.models.without_weights import skeleton

    model = skeleton(config)
    if model is not None:
        chosen_parameters(model, read_settings(HiddenSettings, method.params))


def _check_processes() -> None:
    """One process of several would wait for ever for an artifact that it has to help to make."""
    from dareu.training.common import process_count

    if process_count() > 1:
        raise ConfigError(
            "A run is one process; this one was started as one of several.",
            "Start it without torchrun or accelerate launch.",
        )
