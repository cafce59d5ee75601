"""Settings that one loss, reward or attributor alone reads: `method.params`, `attributor.params`, …"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from dareu.config.base import Strict
from dareu.config.keys import in_words
from dareu.errors import ConfigError, nearest


def check_names(what: str, key: str, given: Iterable[str], known: Collection[str]) -> None:
    """Check names of settings.

    Args:
        what: Who reads them, such as "loss 'npo'".
        key: Where they stand, such as `method.params`.

    Raises:
        ConfigError: One of `given` is none of `known`.
    """
    for name in given:
        if name not in known:
            raise ConfigError(
                f"The {what} has no parameter '{name}' ({key}).",
                nearest(name, known) or "It has none: leave it out.",
            )


def read_settings(settings: type[Strict], params: dict[str, Any], key: str = "method.params") -> Any:
    """The part of `params` that `settings` has fields for; `key` is where they stand.

    Raises:
        ConfigError: Names the key and what is wrong with it.
    """
    try:
        return settings.model_validate({k: v for k, v in params.items() if k in settings.model_fields})
    except ValidationError as error:
        first: dict[str, Any] = dict(error.errors()[0])
        name = f"{key}.{first['loc'][0]}" if first["loc"] else key
        cure = f"Add {name}=… to the command." if first["type"] == "missing" else f"Change {name}."
        raise ConfigError(f"{problem(settings, first, name)}.", cure) from None


def problem(settings: type[Strict], item: Mapping[str, Any], key: str) -> str:
    """One error of pydantic's about `settings`, which has no groups of keys, in a clause; `key`: its full name."""
    if item["type"] == "missing":
        return f"'{key}' is not set"
    if item["type"] == "value_error":  # a check of our own
        return f"'{key}': {item['msg'].removeprefix('Value error, ')}"
    schema = settings.model_json_schema()
    allowed = in_words(schema["properties"][str(item["loc"][0])], schema.get("$defs", {}))
    return f"'{key}' must be {allowed} (got {item['input']!r:.80})"
