"""Experiment files: which are chosen, and which of them hold whole blocks, as `config.yaml` of a run folder does."""

import re
from collections.abc import Sequence

from dareu.config.choices import GROUPS, yaml_files
from dareu.config.keys import UNIONS
from dareu.config.run import RunConfig
from dareu.errors import ConfigError

GLOBAL = "# @package _global_"  # above the keys of an experiment, for Hydra
PACKAGE = re.compile(r"^#\s*@package\b", re.MULTILINE)


def one_experiment(overrides: Sequence[str]) -> list[str]:
    """`+experiment=B` adds B to the experiment that is chosen, if one is; Hydra has one entry for both."""
    if not any(chooses_experiment(o) and o.startswith("+") for o in overrides):
        return list(overrides)
    others = [o for o in overrides if not chooses_experiment(o)]
    return [*others, f"experiment=[{','.join(experiments(overrides))}]"]


def chooses_experiment(override: str) -> bool:
    """Whether it is `experiment=…` or `+experiment=…`."""
    return override.lstrip("+").startswith("experiment=")


def experiments(overrides: Sequence[str]) -> list[str]:
    """The names of the experiments that are chosen."""
    chosen = [o.partition("=")[2] for o in overrides if chooses_experiment(o)]
    names = [name.strip() for listed in chosen for name in listed.strip("[]").split(",")]
    return [name for name in names if name not in ("", "null")]


def whole_blocks(overrides: Sequence[str], config_dir: str | None) -> dict[str, str]:
    """Group → option, where an experiment's file has a whole block, as the file of a finished run has: one that says
    its `name`. It stands on the option of that name, and another one that the command chooses takes its place.

    Raises:
        ConfigError: The file's keys would not reach the run.
    """
    import yaml

    if not (names := experiments(overrides)):
        return {}
    files = yaml_files("experiment", config_dir)
    known = {group: yaml_files(group, config_dir) for group in UNIONS}
    blocks: dict[str, str] = {}
    for name in names:
        text = files[name].read_text(encoding="utf-8")
        try:
            tree = yaml.safe_load(text)
        except yaml.YAMLError:
            continue  # Hydra tells
        if not isinstance(tree, dict):
            continue
        if set(tree) & {*GROUPS, *RunConfig.model_fields} and not PACKAGE.search(text):
            raise ConfigError(
                f"The experiment file {files[name].name} has no line '{GLOBAL}'.",
                "Write it above the keys: without it they are keys of `experiment`.",
            )
        for group in UNIONS:
            block = tree.get(group)
            option = block.get("name") if isinstance(block, dict) else None
            if isinstance(option, str) and option in known[group]:
                blocks[group] = option
    return blocks
