"""Each method is one file, named as its YAML; what is said of the losses in messages is true."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import dareu.methods
from dareu.config import LossMethodConfig
from dareu.config.compose import compose, options
from dareu.methods import registry
from dareu.methods.base import Method
from dareu.methods.loss_method import PAIRED, LossMethod

FILES = [module.name for module in pkgutil.iter_modules(dareu.methods.__path__)]
VARIANTS = {
    "dareu_rloo",
    "dareu_grpo",
    "dareu_levels",
    "dareu_long",
    "dareu_warm",
    "dareu_whole",
}  # YAMLs of dareu.py


def test_each_file_that_defines_a_method_is_named_as_its_yaml() -> None:
    defining = {n for n in FILES if hasattr(importlib.import_module(f"dareu.methods.{n}"), "METHOD")}
    assert defining == set(registry.BUILT_IN) == set(options()["method"]) - VARIANTS
    for name, method in registry.built_in().items():
        assert isinstance(method, Method), name


@pytest.mark.parametrize("name", sorted(set(registry.BUILT_IN) | VARIANTS))
def test_a_yaml_configures_the_method_of_its_name(name: str) -> None:
    method = compose([f"method={name}"]).method
    assert method.algorithm == ("dareu" if name in VARIANTS else name)
    row = registry.method_of(method)
    assert isinstance(row, LossMethod) == isinstance(method, LossMethodConfig)


def test_methods_that_put_fictitious_names_in_the_texts_say_so() -> None:
    """A run then counts the forget samples without a name."""
    names = [*registry.BUILT_IN, *VARIANTS]
    runs = {name: compose([f"method={name}"]) for name in names}
    replacing = {name for name, run in runs.items() if registry.method_of(run.method).replaces_names(run)}
    warm = {name for name, run in runs.items() if getattr(run.method, "warm_start", None)}
    assert replacing == {"counterfactual", *warm} and "dareu_warm" in warm


def test_messages_name_the_losses_that_read_a_second_response() -> None:
    for kind, names in PAIRED.items():
        rows = registry.built_in().items()
        assert {n for n, m in rows if isinstance(m, LossMethod) and m.pairs == kind} == set(names.split(", "))


def test_an_older_name_of_a_loss_is_understood() -> None:
    assert registry.find_method("nll") is registry.find_method("finetune")
