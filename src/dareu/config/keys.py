"""Every key of the schema: its path, what it may be, its default, what it means. Read from the types alone.

Messages, `dareu configs KEY` and `docs/config.md` all read these.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from dareu.config.run import RunConfig
from dareu.config.tune import TuneKeys

# Keys with variants, and the key that tells a variant apart.
UNIONS = {"data": "name", "model": "name", "method": "kind"}
_BOUNDS = {
    "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt",
    "ge": "ge", "le": "le", "gt": "gt", "lt": "lt",
}  # fmt: skip
MISSING = object()


@dataclass(frozen=True)
class Key:
    """One key of one variant.

    `variant` is such as `model.name=tiny`, empty for a key that all runs have; `dareu tune` has keys of its own.
    `allowed` says in words what it may be; `bounds` are those of a number (`ge`, `gt`, `le`, `lt`), None where no
    number is allowed. `default` is `MISSING` where the key has to be given. `group`: it has keys below it.
    """

    path: str
    variant: str
    allowed: str
    default: Any
    description: str
    bounds: dict[str, float] | None
    whole: bool
    group: bool

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def default_text(self) -> str:
        """The default as one writes it on the command line."""
        if self.required:
            return "required"
        if isinstance(self.default, str):
            return self.default
        return json.dumps(self.default, ensure_ascii=False)


@cache
def schema_keys() -> tuple[Key, ...]:
    """All keys of all variants, in the order of the schema."""
    schema = RunConfig.model_json_schema()
    return tuple(_walk(schema, schema.get("$defs", {}), "", ""))


@cache
def tune_keys() -> tuple[Key, ...]:
    """The keys that `dareu tune` alone has."""
    return tuple(_walk(TuneKeys.model_json_schema(), {}, "", "dareu tune"))


def keys_named(path: str) -> list[Key]:
    """The variants of the key at `path`; none where there is no such key."""
    return [key for key in schema_keys() if key.path == path]


def chosen_variant(path: str, tree: dict[str, Any]) -> str:
    """The variant that `tree` has chosen for the part of the configuration that `path` lies in."""
    top = path.partition(".")[0]
    chosen = tree.get(top)
    if top not in UNIONS or not isinstance(chosen, dict):
        return ""
    return f"{top}.{UNIONS[top]}={chosen.get(UNIONS[top])}"


def allowed_values(path: str, variant: str = "") -> str:
    """What the key at `path` may be, in words; those of all variants unless one is named."""
    keys = [key for key in keys_named(path) if not variant or key.variant in ("", variant)]
    return " or ".join(dict.fromkeys(key.allowed for key in keys or keys_named(path)))


def _walk(node: dict[str, Any], defs: dict[str, Any], above: str, variant: str) -> Iterator[Key]:
    for name, field in node.get("properties", {}).items():
        path = f"{above}.{name}" if above else name
        below = [part for part in _parts(field, defs) if "properties" in part]
        default = field.get("default", MISSING if name in node.get("required", ()) else {})
        group = bool(below)
        parts = _parts(field, defs)
        number = next((part for part in parts if part.get("type") in ("integer", "number")), None)
        yield Key(
            path=path,
            variant=variant,
            allowed=in_words(field, defs),
            default=default if not group or default is None or default is MISSING else {},
            description=field.get("description", ""),
            bounds=_bounds(number) | _bounds(field) if number else None,
            whole=bool(number) and number.get("type") == "integer",  # type: ignore[union-attr]
            group=group,
        )
        for part in below:
            inner = variant
            if path in UNIONS:
                tag = part["properties"].get(UNIONS[path], {}).get("const")
                inner = f"{path}.{UNIONS[path]}={tag or '<another>'}"
            yield from _walk(part, defs, path, inner)


def in_words(field: dict[str, Any], defs: dict[str, Any]) -> str:
    """What a field of a JSON schema allows, in words."""
    return ", or ".join(dict.fromkeys(map(_words, _parts(field, defs))))


def _parts(field: dict[str, Any], defs: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of a field, with references followed."""
    if "$ref" in field:
        return [defs[field["$ref"].rpartition("/")[2]]]
    for union in ("anyOf", "oneOf", "allOf"):
        if union in field:
            return [part for one in field[union] for part in _parts(one, defs)]
    return [field]


def _bounds(part: dict[str, Any]) -> dict[str, float]:
    """Bounds of a number; a constraint over several alternatives stands beside them under its short name."""
    return {short: part[name] for name, short in _BOUNDS.items() if name in part}


def _words(part: dict[str, Any]) -> str:
    """What one alternative allows."""
    if "const" in part:
        return str(part["const"])
    if "enum" in part:
        return f"one of {', '.join(map(str, part['enum']))}"
    kind = part.get("type")
    if kind in ("integer", "number"):
        return f"{'a whole number' if kind == 'integer' else 'a number'}{_range(_bounds(part))}"
    if kind == "array":
        item = _words(part["items"]).removeprefix("a ") if part.get("items") else ""
        items = re.sub(r"^(whole number|number|list|mapping)", r"\1s", item)
        filled = " (not empty)" if part.get("minItems") else ""
        return f"a list{filled} of {items}" if items else f"a list{filled}"
    if "properties" in part:
        return "keys below it"
    if kind == "string" and part.get("minLength"):
        return "text that is not empty"
    words = {"string": "text", "boolean": "true or false", "null": "null", "object": "a mapping"}
    return words.get(str(kind), "anything")


def _range(bounds: dict[str, float]) -> str:
    words = []
    if "ge" in bounds and "le" in bounds:
        return f" from {_plain(bounds['ge'])} to {_plain(bounds['le'])}"
    for short, word in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if short in bounds:
            words.append(f"{word} {_plain(bounds[short])}")
    return f" {' and '.join(words)}" if words else ""


def _plain(number: float) -> str:
    """A bound as a person writes it."""
    return f"{int(number)}" if float(number).is_integer() else f"{number:g}"
