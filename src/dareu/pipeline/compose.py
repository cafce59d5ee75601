"""From Hydra's YAML files and overrides to a typed `RunConfig`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dareu.config import RunConfig, parse
from dareu.errors import ConfigError, nearest

GROUPS = ("model", "data", "method", "logging", "experiment")


def config_folder() -> Path:
    """The folder of YAML files: inside the installed package, or at the top of the source tree."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parents[1] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError("The configuration files of dareu were not found.", "Install the package again.")


def compose(overrides: Sequence[str] = (), config_dir: str | None = None) -> RunConfig:
    """The run that `overrides` describe. `ConfigError` names the nearest key, group or option."""
    return parse(compose_tree(overrides, config_dir))


def compose_tree(overrides: Sequence[str] = (), config_dir: str | None = None) -> dict[str, Any]:
    """The composed configuration as a plain dict, not yet checked against the types."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    check_overrides(overrides, config_dir)
    search = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    try:
        with _hydra():
            tree = hydra_compose("train", overrides=[*overrides, *search])
            return dict(OmegaConf.to_container(tree, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, overrides) from None


def as_yaml(config: RunConfig) -> str:
    """The resolved configuration, as it stands in a run folder."""
    import yaml

    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


@contextmanager
def _hydra() -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def options(config_dir: str | None = None) -> dict[str, dict[str, str]]:
    """What can be chosen: group → option → the first comment line of its YAML."""
    found: dict[str, dict[str, str]] = {}
    for group in GROUPS:
        found[group] = {}
        for folder in [config_folder(), *([Path(config_dir)] if config_dir else [])]:
            for path in sorted((folder / group).glob("*.yaml")):
                found[group][path.stem] = _first_comment(path)
    return found


def _first_comment(path: Path) -> str:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return next((line[2:] for line in lines if not line.startswith("# @")), "")


def check_overrides(overrides: Sequence[str], config_dir: str | None) -> None:
    """Unknown options of a group, told before Hydra tells it at length."""
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(
            f"There is no folder {config_dir}.", "--config-dir takes a folder of your own YAML files."
        )
    known = options(config_dir)
    for override in overrides:
        name, _, value = override.lstrip("+").partition("=")
        if (
            name in known
            and value not in ("null", "")
            and not re.search(r"[,({\[]", value)
            and value not in known[name]
        ):
            raise ConfigError(f"There is no {name} '{value}'.", nearest(value, known[name]))


def _explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Hydra's message in one line, with the nearest key where one was misspelt."""
    text = str(error)
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return ConfigError(f"'{missing[1]}' is not set.", f"Add {missing[1]}=… to the command.")
    unknown = re.search(r"Key '([^']+)' is not in struct", text) or re.search(
        r"Could not override '([^']+)'", text
    )
    if unknown:
        key = next((o.lstrip("+~").partition("=")[0] for o in overrides if unknown[1] in o), unknown[1])
        return ConfigError(f"There is no key '{key}'.", nearest(key, _all_keys()))
    return ConfigError(
        f"The overrides cannot be read: {' '.join(text.split())[:300]}",
        "Overrides look like key=value; quote the shell's own signs.",
    )


def _all_keys() -> list[str]:
    """Every dotted key of the default configuration."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    with _hydra():
        tree = OmegaConf.to_container(hydra_compose("train"))
    keys: list[str] = []

    def walk(node: Any, path: str) -> None:
        for name, child in node.items() if isinstance(node, dict) else ():
            keys.append(f"{path}{name}")
            walk(child, f"{path}{name}.")

    walk(tree, "")
    return keys
