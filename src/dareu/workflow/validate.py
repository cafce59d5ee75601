"""What can be told of a run before it starts: packages, device, method, folders. Nothing is written here."""

from __future__ import annotations

from importlib.util import find_spec

from dareu.attribution.registry import find_attributor
from dareu.config import RunConfig
from dareu.data.corpus import Split
from dareu.errors import ConfigError
from dareu.methods.registry import method_of
from dareu.workflow.prepare import check_model_folder


def check_run(config: RunConfig) -> None:
    """`ConfigError` or `ModelError` for whatever would otherwise end the run after minutes of work."""
    from dareu.models.load import pick_device

    pick_device(config.device)
    _check_processes()
    _check_logger(config)
    find_attributor(config.attributor.name)
    method_of(config.method).validate(config)
    if config.attributor.backbone.path:
        check_model_folder(config.attributor.backbone.path)


def check_split(config: RunConfig, split: Split) -> None:
    """`ConfigError` or `DataError` where the forget set does not fit the method."""
    method_of(config.method).validate(config, split)


def _check_logger(config: RunConfig) -> None:
    name = config.logging.report_to
    if name != "none" and find_spec(name) is None:
        raise ConfigError(
            f"logging={name} needs a package that is not installed.", f"pip install 'dareu[{name}]'"
        )


def _check_processes() -> None:
    """One process of several would wait for ever for an artifact that it has to help to make."""
    from dareu.training.common import process_count

    if process_count() > 1:
        raise ConfigError(
            "A run is one process; this one was started as one of several.",
            "Start it without torchrun or accelerate launch.",
        )
