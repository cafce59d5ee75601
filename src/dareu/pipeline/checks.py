"""What can be told of a run before it starts: packages, device, method, folders. Nothing is written here."""

from __future__ import annotations

import inspect
from importlib.util import find_spec

from dareu.config import DareUConfig, LossMethodConfig, RunConfig
from dareu.data.corpus import Split
from dareu.errors import ConfigError, nearest
from dareu.pipeline.prepare import check_model_folder


def check_run(config: RunConfig) -> None:
    """`ConfigError` or `ModelError` for whatever would otherwise end the run after minutes of work."""
    from dareu.models.load import pick_device

    pick_device(config.device)
    _check_logger(config)
    if isinstance(config.method, LossMethodConfig):
        _check_loss(config.method)
    elif config.method.use_vllm and find_spec("vllm") is None:
        raise ConfigError(
            "method.use_vllm=true needs a package that is not installed.", "pip install 'dareu[vllm]'"
        )
    if config.attributor.backbone.path:
        check_model_folder(config.attributor.backbone.path)


def check_split(config: RunConfig, split: Split) -> None:
    """`ConfigError` where the forget set does not fit the method's batches."""
    if isinstance(config.method, DareUConfig):
        from dareu.data.boundary import retain_count
        from dareu.methods.common import rollout_batch

        added = retain_count(len(split.forget), len(split.retain), config.method.retain_prompts.share)
        rollout_batch(config.method, len(split.forget) + added)


def _check_logger(config: RunConfig) -> None:
    name = config.logging.report_to
    if name != "none" and find_spec(name) is None:
        raise ConfigError(
            f"logging={name} needs a package that is not installed.", f"pip install 'dareu[{name}]'"
        )


def _check_loss(method: LossMethodConfig) -> None:
    """The loss exists, and its own parameters are those that `method.params` names."""
    from dareu.methods.registry import find_method

    row = find_method(method.loss)
    known = {n: p for n, p in inspect.signature(row.loss).parameters.items() if n not in row.reads}
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in method.params:
        if name not in known:
            raise ConfigError(
                f"The loss '{method.loss}' has no parameter '{name}' (method.params).",
                nearest(name, known) or "It has none.",
            )
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in method.params:
            raise ConfigError(f"The loss '{method.loss}' needs method.params.{name}.", "Set it.")
