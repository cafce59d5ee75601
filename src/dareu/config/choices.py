"""What can be chosen: the groups of YAML files, their options, and which methods have a key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dareu.config.keys import keys_named
from dareu.errors import ConfigError, check_folder

GROUPS = ("model", "data", "method", "evaluation", "logging", "experiment")
PARAMS = "method.params"  # above the settings of losses, which are no keys of the schema


def config_folder() -> Path:
    """The folder of YAML files: inside the installed package, or at the top of the source tree."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parents[1] / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ConfigError("The configuration files of dareu were not found.", "Install the package again.")


def yaml_files(group: str, config_dir: str | None = None) -> dict[str, Path]:
    """Option → its YAML file, the user's own behind those of dareu.

    Raises:
        ConfigError: `config_dir` is no folder.
    """
    folders = [config_folder()]
    if config_dir is not None:
        cure = "Give a folder of your own YAML files, laid out like configs/."
        folders.append(check_folder(Path(config_dir).expanduser(), cure, ConfigError))
    return {path.stem: path for folder in folders for path in sorted((folder / group).glob("*.yaml"))}


def options(config_dir: str | None = None) -> dict[str, dict[str, str]]:
    """What can be chosen: group → option → the first comment line of its YAML."""
    return {
        group: {name: _first_comment(path) for name, path in yaml_files(group, config_dir).items()}
        for group in GROUPS
    }


def _first_comment(path: Path) -> str:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return next((line[2:] for line in lines if not line.startswith("# @")), "")


def loss_settings(config_dir: str | None = None) -> dict[str, dict[str, Any]]:
    """Setting of a loss, such as `beta` → method → its value there."""
    values: dict[str, dict[str, Any]] = {}
    for method, tree in _methods(config_dir):
        for name, value in (tree.get("params") or {}).items():
            values.setdefault(name, {})[method] = value
    return values


def methods_with(key: str, config_dir: str | None = None) -> list[str]:
    """The methods that have a key, such as `method.params.beta`."""
    if key.startswith(f"{PARAMS}."):
        return list(loss_settings(config_dir).get(key.removeprefix(f"{PARAMS}."), ()))
    kinds = {found.variant for found in keys_named(key)}
    return [method for method, tree in _methods(config_dir) if f"method.kind={tree.get('kind')}" in kinds]


def _methods(config_dir: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each method's name and its YAML, with the keys of the method that it begins from."""
    import yaml

    files = yaml_files("method", config_dir)

    def read(name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
        """Empty for a file that is no mapping: a message about another key is no place to tell of it."""
        try:
            tree = yaml.safe_load(files[name].read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, OSError):
            return {}
        if not isinstance(tree, dict):
            return {}
        params = tree.get("params") or {}
        tree["params"] = params if isinstance(params, dict) else {}
        above = tree.pop("defaults", None)
        for other in above if isinstance(above, list) else ():
            if isinstance(other, str) and other in files and other not in (name, *below):
                found = read(other, (name, *below))
                tree = found | tree | {"params": found.get("params", {}) | tree["params"]}
        return tree

    for name in files:
        yield name, read(name)
