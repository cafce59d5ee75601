"""A composed dict as a `RunConfig`, and what is said of keys that are wrong."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dareu.config.run import RunConfig
from dareu.errors import ConfigError, nearest

# Keys with variants, and the key that tells a variant apart. pydantic puts its tag (tiny, rl, …) into the path.
_UNIONS = {"data": "name", "model": "name", "method": "kind"}


def _keys(node: Any, path: str = "") -> list[str]:
    """Every dotted key below a type; those of all variants where there are several."""
    if not (isinstance(node, type) and issubclass(node, BaseModel)):
        return [key for part in get_args(node) for key in _keys(part, path)]
    found = []
    for name, field in node.model_fields.items():
        found += [f"{path}{name}", *_keys(field.annotation, f"{path}{name}.")]
        found += [key for part in field.metadata for key in _keys(part, f"{path}{name}.")]
    return list(dict.fromkeys(found))


def _unknown(path: str, tree: dict[str, Any]) -> str:
    """What to say of a key that is not there: that another variant has it, or the nearest keys."""
    known = _keys(RunConfig)
    top = path.partition(".")[0]
    if path in known and top in _UNIONS:
        length = "; data_epochs, prompts_per_batch and updates_per_batch say how long it trains"
        more = length if path.startswith("method.optim.") else ""
        return f"unknown key '{path}' where {top}.{_UNIONS[top]}={tree[top].get(_UNIONS[top])}{more}"
    above, _, name = path.rpartition(".")
    close = get_close_matches(
        path, [key for key in known if key.rpartition(".")[0] == above], n=1, cutoff=0.6
    )
    same = [key for key in known if key.rpartition(".")[2] == name]  # the right name in the wrong place
    return f"unknown key '{path}'. {nearest(path, close or same or known)}".removesuffix(".")


def parse(tree: dict[str, Any]) -> RunConfig:
    """A composed config (plain dict) as a `RunConfig`; `ConfigError` names the key, the cause and the nearest key."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            loc = [p for i, p in enumerate(item["loc"]) if i != 1 or item["loc"][0] not in _UNIONS]
            path = ".".join(map(str, loc))
            if item["type"] == "extra_forbidden":
                lines.append(_unknown(path, tree))
            else:
                got = "" if isinstance(item.get("input"), dict) else f" (got {item.get('input')!r:.80})"
                where = f"'{path}': " if path else ""  # a check of the whole has no key of its own
                lines.append(f"{where}{item['msg'].removeprefix('Value error, ')}{got}")
        raise ConfigError(
            "The configuration is not valid: " + "; ".join(lines) + ".",
            "Run `dareu configs` for what can be chosen, `dareu train --print` for the keys.",
        ) from None
