"""The methods: one file each, named as the method; those of other packages by the entry points `dareu.methods`."""

import importlib

from dareu.config import MethodConfig
from dareu.config.plugins import load_plugin
from dareu.methods.base import Method
from dareu.methods.loss_method import LossMethod

__all__ = ["BUILT_IN", "LossMethod", "Method", "built_in", "find_method", "method_of"]

# Each has a file of its name beside this one, whose `METHOD` is its row, and a YAML of its name.
BUILT_IN = (
    "altpo", "ceu", "counterfactual", "dareu", "demem", "duet", "finetune", "flat", "fresh_adapter", "grad_diff",
    "gradient_ascent", "idk_dpo", "idk_sft", "jensun", "kl_min", "npo", "pdu", "purge", "repselect", "rmu", "rule",
    "satimp", "scrub", "scurenewton", "shred", "simnpo", "task_vector", "undial", "undo", "wga",
)  # fmt: skip
ALIASES = {"nll": "finetune"}  # `loss: nll` of older YAMLs


def find_method(name: str) -> Method:
    """The method called `name`, built in or from another package. Only its own file is imported.

    Raises:
        ConfigError: There is none, or the entry point is no `Method`.
    """
    name = ALIASES.get(name, name)
    method: Method
    if name in BUILT_IN:
        method = importlib.import_module(f"dareu.methods.{name}").METHOD
        return method
    method = load_plugin("dareu.methods", name, f"loss '{name}'", BUILT_IN, Method)
    return method


def method_of(config: MethodConfig) -> Method:
    """The method that a run's `method` block configures."""
    return find_method(config.algorithm)


def built_in() -> dict[str, Method]:
    """All methods of this package; imports every file."""
    return {name: find_method(name) for name in BUILT_IN}
