"""Tables that lie as data files beside the modules that read them, and a walk through nested mappings."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def read_table(package: str, name: str) -> dict[str, Any]:
    """The content of a JSON or YAML file in `package`. It is shared by all callers, who must not change it."""
    text = files(package).joinpath(name).read_text(encoding="utf-8")
    return dict(json.loads(text) if name.endswith(".json") else yaml.safe_load(text))


def word_table(name: str) -> dict[str, Any]:
    """The words of a generated corpus: `<name>.json`."""
    return read_table("dareu.data.sources", f"{name}.json")


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all that is no mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
