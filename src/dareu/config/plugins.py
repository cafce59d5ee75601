"""What other packages add by entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

from dareu.errors import ConfigError, nearest


@cache
def _installed(group: str, path: tuple[str, ...]) -> EntryPoints:
    return metadata.entry_points(group=group)


def entry_points(group: str) -> EntryPoints:
    """Those of the packages on `sys.path`, whose files are read once: a report asks a hundred times."""
    return _installed(group, tuple(sys.path))


def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name."""
    return {point.name: point for point in entry_points(group=group)}


def load_plugin(
    group: str, name: str, what: str, built_in: Iterable[str], kind: type[Any] | None = None
) -> Any:
    """What the entry point `name` of a group names.

    Args:
        what: What is looked for, as messages call it, such as "reward 'short' (method.reward.kind)".
        built_in: The names that need no entry point, for the message.
        kind: The class of the object; None: any.

    Raises:
        ConfigError: There is no such entry point, or it names something else.
    """
    known = plugins(group)
    if name not in known:
        raise ConfigError(f"There is no {what}.", nearest(name, [*built_in, *known]))
    plugin = known[name].load()
    if kind is not None and not isinstance(plugin, kind):
        raise ConfigError(
            f"The entry point '{name}' of {group} names a {type(plugin).__name__}, not a {kind.__name__}.",
            f"It has to name a {kind.__module__}.{kind.__name__}.",
        )
    return plugin
