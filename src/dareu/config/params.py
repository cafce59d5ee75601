"""Settings that one loss, reward or attributor alone reads: `method.params`, `attributor.params`, …"""

from collections.abc import Collection, Iterable
from typing import Any

from pydantic import ValidationError

from dareu.config.base import Strict
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
        first = error.errors()[0]
        name = ".".join(str(part) for part in (key, *first["loc"][:1]))
        if first["type"] == "missing":
            raise ConfigError(f"'{name}' is not set.", f"Add {name}=… to the command.") from None
        raise ConfigError(
            f"'{name}': {first['msg']} (got {first['input']!r:.80}).", f"Change {name}."
        ) from None
