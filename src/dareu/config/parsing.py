"""A composed dict as a `RunConfig`, and what is said of keys that are wrong."""

from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from dareu.config.choices import PARAMS, loss_settings, methods_with
from dareu.config.keys import UNIONS, allowed_values, chosen_variant, keys_named, schema_keys
from dareu.config.run import RunConfig
from dareu.errors import ConfigError, listed, nearest

NAMED = 8  # methods that a message lists
FEW = 3  # keys that a message lists
_LENGTH = "; data_epochs, prompts_per_batch and updates_per_batch say how long it trains"
# Keys of methods that are a loss, and what reinforcement has in their place.
_ELSEWHERE = {
    "method.optim.epochs": _LENGTH,
    "method.optim.steps": _LENGTH,
    "method.optim.batch_size": _LENGTH,
    "method.optim.name": ", which trains by AdamW",
}


def parse(tree: dict[str, Any], config_dir: str | None = None) -> RunConfig:
    """A composed config (plain dict) as a `RunConfig`.

    Args:
        config_dir: The user's own YAML files, whose methods a message may name.

    Raises:
        ConfigError: It names each key that is wrong, what the key may be, and the nearest keys of one that is unknown.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        messages = list(dict.fromkeys(_message(dict(item), tree, config_dir) for item in error.errors()))
        raise ConfigError(
            "The configuration is not valid: " + "; ".join(messages) + ".",
            "Run `dareu configs` for what can be chosen, `dareu configs KEY` for what a key may be, "
            "`dareu train --print` for the whole configuration.",
        ) from None


def _as_yaml(value: Any) -> str:
    return "null" if value is None else f"{value!r:.80}"


def _message(item: dict[str, Any], tree: dict[str, Any], config_dir: str | None) -> str:
    """One error of pydantic's in one clause."""
    # pydantic puts the tag of a variant (tiny, rl, …) into the path, and the alternatives of a type behind it.
    parts = [str(p) for i, p in enumerate(item["loc"]) if i != 1 or item["loc"][0] not in UNIONS]
    whole = ".".join(parts)
    if item["type"] == "extra_forbidden":
        below = item.get("input") if whole == PARAMS else None
        path = f"{PARAMS}.{next(iter(below))}" if isinstance(below, dict) and below else whole
        return _unknown(path, tree, config_dir)
    path = _longest_key(parts)
    given = item.get("input")
    got = "" if isinstance(given, dict) else f" (got {_as_yaml(given)})"
    if item["type"] == "string_type" and isinstance(given, bool | None) and parts[-1].isdigit():
        word = _as_yaml(given).lower()
        got = f" (got {word}; a name that reads as a value goes in quotes: \"{path}=['{word}']\")"
    keys = keys_named(path)
    if item["type"] == "missing":
        return f"'{whole}' is not set"
    if item["type"] in ("model_type", "model_attributes_type", "dict_type") and any(
        key.group for key in keys
    ):
        below = [key.path for key in schema_keys() if key.path.startswith(f"{path}.")]
        return f"'{path}' is a group of keys, such as {', '.join(below[:3])}{got}"
    own_words = item["type"] == "value_error" and not any(key.bounds is not None for key in keys)
    if not path or own_words or any(key.group for key in keys):
        where = f"'{whole}': " if whole else ""  # a check of the whole has no key of its own
        return f"{where}{item['msg'].removeprefix('Value error, ')}{got}"
    return f"'{path}' must be {allowed_values(path, chosen_variant(path, tree))}{got}"


def _longest_key(parts: list[str]) -> str:
    """The longest beginning of `parts` that is a key; empty where none is."""
    known = {key.path for key in schema_keys()}
    starts = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((start for start in starts if start in known), "")


def _unknown(path: str, tree: dict[str, Any], config_dir: str | None) -> str:
    """What to say of a key that is not there: where one of its name is, which methods have it, or the nearest keys."""
    top, above, name = path.partition(".")[0], path.rpartition(".")[0], path.rpartition(".")[2]
    variant = chosen_variant(path, tree)
    params = [f"{PARAMS}.{setting}" for setting in loss_settings(config_dir)]
    known = list(dict.fromkeys([*(key.path for key in schema_keys()), *params]))
    if path in known and top in UNIONS:
        more = _ELSEWHERE.get(path, "") if variant == "method.kind=rl" else ""
        return f"unknown key '{path}' where {variant}{more or f'; it is {_key_of(path, config_dir)}'}"
    named = sorted((key for key in known if key.endswith(f".{name}")), key=lambda key: key.count("."))
    below = [key for key in named if key.startswith(f"{above}.")]
    longer = [key for key in known if key.startswith(f"{path}_")]  # scrambled: scrambled_batch_size
    no_params = above == PARAMS and not any(key.variant == variant for key in keys_named(PARAMS))
    near = longer or _alike(name, [key for key in known if key.rpartition(".")[0] == above], 0.7)
    if places := below or (named if not near or no_params else []):  # the right name in the wrong place
        chosen = _chosen(tree)
        few = len(places) <= FEW
        meant = places if few else [key for key in places if key in chosen][:FEW] or places[:1]
        found = [key if key in chosen else f"{key} ({_key_of(key, config_dir, len(meant))})" for key in meant]
        return f"unknown key '{path}'. Its full name is {' or '.join(found)}"
    if no_params:
        return f"unknown key '{path}': method={tree['method'].get('name')} takes no {PARAMS}"
    near = near or _alike(name, known, 0.8)
    clause = f"Nearest: {', '.join(near[:3])}" if near else nearest(path, known).removesuffix(".")
    return f"unknown key '{path}'. {clause}"


def _alike(name: str, keys: list[str], cutoff: float) -> list[str]:
    """Those of `keys` whose last word is most like `name`."""
    words = dict.fromkeys(key.rpartition(".")[2] for key in keys)
    best = get_close_matches(name, list(words), n=1, cutoff=cutoff)
    return [key for key in keys if key.rpartition(".")[2] in best]


def _chosen(tree: dict[str, Any]) -> set[str]:
    """The keys that runs with the variants of `tree` have."""
    method = tree.get("method")
    params = method.get("params") if isinstance(method, dict) else None
    schema = {key.path for key in schema_keys() if key.variant in ("", chosen_variant(key.path, tree))}
    return schema | {f"{PARAMS}.{name}" for name in (params if isinstance(params, dict) else ())}


def _key_of(path: str, config_dir: str | None, beside: int = 1) -> str:
    """Which methods, or which other variants, have a key; `beside`: among how many this is told."""
    names = list(dict.fromkeys(key.variant.replace(".name=", "=") for key in keys_named(path)))
    if path.startswith("method."):
        names = methods_with(path, config_dir)
    return f"a key of {'method=' * path.startswith('method.')}{listed(names, NAMED // beside)}"
