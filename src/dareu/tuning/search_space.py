"""A method's `search` block: what may be tried, read from Hydra's override grammar into Optuna's distributions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dareu.config import RunConfig, parse
from dareu.config.compose import put
from dareu.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Setting = dict[str, Any]  # dotted key below `method.` → value
MISSING = object()


def space_of(
    config: RunConfig, fixed: frozenset[str] = frozenset()
) -> tuple[dict[str, BaseDistribution], Setting]:
    """(key → distribution, key → default) of `config.method.search`, in the order of the YAML.

    A default that lies outside of its own space widens it, so that the first trial can be the defaults. Keys in
    `fixed`, which the command line sets, are not searched.

    Raises:
        ConfigError: The method has no `search` block, or the block a key that the method does not have, or a value that
            the key does not take; the message names the YAML.
    """
    method = config.method
    file = f"configs/method/{method.name}.yaml"
    if not method.search:
        raise ConfigError(
            f"{file} has no search block, so there is nothing to tune.",
            'Give it one, such as search: {optim.lr: "tag(log, interval(1e-5, 1e-3))"}, or leave the method out.',
        )
    tree = config.model_dump(mode="json")
    space: dict[str, BaseDistribution] = {}
    defaults: Setting = {}
    for key, text in method.search.items():
        default = _at(tree["method"], key)
        if default is MISSING:
            raise ConfigError(
                f"{file}: search names 'method.{key}', which does not exist.", "See `dareu train --print`."
            )
        try:
            distribution, default = _with_default(distribution_of(key, text), default)
        except ValueError as error:
            raise ConfigError(
                f"{file}: search.{key}={text}: {error}.",
                "It takes choice(…), range(…), interval(…) or tag(log, interval(…)).",
            ) from None
        for value in _ends(distribution):
            _check(tree, key, value, f"{file}: search.{key}")
        if key not in fixed:
            space[key], defaults[key] = distribution, default
    if not space:
        raise ConfigError(
            f"The command sets every key that {file} searches.",
            "Leave one of them out, or use `dareu train -m`.",
        )
    return space, defaults


def overrides_of(setting: Mapping[str, Any]) -> list[str]:
    """A setting as Hydra overrides."""
    return [f"++method.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in setting.items()]


def show_setting(setting: Mapping[str, Any]) -> str:
    """lr=0.0003, epochs=5: the last name of each key, floats in four digits."""
    texts = {k: f"{v:.4g}" if isinstance(v, float) else json.dumps(v).strip('"') for k, v in setting.items()}
    return ", ".join(f"{key.rpartition('.')[2]}={text}" for key, text in texts.items())


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return MISSING
        tree = tree[part]
    return tree


def distribution_of(key: str, text: str) -> BaseDistribution:
    """What `text` says in Hydra's override grammar.

    Raises:
        ValueError: It is no sweep.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
    from hydra.errors import HydraException
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        sweep = override.value()
        listed = list(override.sweep_iterator()) if isinstance(sweep, ChoiceSweep | RangeSweep) else []
    except HydraException as error:
        raise ValueError(" ".join(str(error).split())[:120]) from None
    if isinstance(sweep, ChoiceSweep):
        return CategoricalDistribution([_plain(value) for value in listed])
    if isinstance(sweep, RangeSweep):  # an even grid, its values in order
        if len(listed) < 2:
            raise ValueError("a range of fewer than two values")
        low, high, step = min(listed), max(listed), abs(sweep.step)
        if all(isinstance(v, int) for v in listed):
            return IntDistribution(int(low), int(high), step=int(step))
        return FloatDistribution(float(low), float(high), step=float(step))
    if isinstance(sweep, IntervalSweep):
        low, high, log = sweep.start, sweep.end, "log" in sweep.tags
        if low is None or high is None or not low < high or (log and low <= 0):
            raise ValueError("its ends are not in order, or not above 0 where it is logarithmic")
        return FloatDistribution(float(low), float(high), log=log)
    raise ValueError("it is one value")


def _plain(value: Any) -> Any:
    """A parsed element as text, number, truth value or None, which are all that Optuna keeps."""
    from hydra.core.override_parser.types import QuotedString

    value = value.text if isinstance(value, QuotedString) else value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError("a choice is a text, a number, true, false or null")


def _with_default(distribution: BaseDistribution, default: Any) -> tuple[BaseDistribution, Any]:
    """The distribution, made wide enough for the default, and the default as that distribution writes it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        same = [
            c
            for c in distribution.choices
            if c == default and isinstance(c, bool) == isinstance(default, bool)
        ]
        if same:
            return distribution, same[0]
        return CategoricalDistribution([*distribution.choices, default]), default
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise ValueError(f"the default, {json.dumps(default)}, is no number")
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    grid = _grid(distribution)
    if grid:
        close = [v for v in grid if math.isclose(v, default)]
        return (
            (distribution, close[0])
            if close
            else (CategoricalDistribution(sorted([*grid, default])), default)
        )
    low, high, log = min(distribution.low, default), max(distribution.high, default), distribution.log
    if isinstance(default, int) and float(low).is_integer() and float(high).is_integer():
        return IntDistribution(int(low), int(high), log=log), default  # Hydra reads interval(1, 10) as floats
    return FloatDistribution(float(low), float(high), log=log), float(default)


def _grid(distribution: Any) -> list[Any]:
    """Every value of a range; nothing for an interval."""
    whole = isinstance(distribution.low, int)
    if distribution.step is None or (whole and distribution.step == 1):
        return []
    count = round((distribution.high - distribution.low) / distribution.step)
    return [distribution.low + i * distribution.step for i in range(count + 1)]


def _ends(distribution: BaseDistribution) -> list[Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _check(tree: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Check that the types take `value` for `method.<key>`.

    Raises:
        ConfigError: They do not.
    """
    changed = json.loads(json.dumps(tree))
    put(changed, f"method.{key}", value)
    try:
        parse(changed)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.cause}", "Correct its bounds.") from None
