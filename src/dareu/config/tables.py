"""Tables that lie as data files beside the modules that read them, such as the words of the generated corpora."""

import json
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
