"""The reference of configuration keys: one Markdown page, and the lines that `dareu configs KEY` prints."""

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml  # type: ignore[import-untyped]

from dareu.config.choices import PARAMS, loss_settings, options, yaml_files
from dareu.config.keys import Key, chosen_variant, keys_named, schema_keys, tune_keys
from dareu.errors import ConfigError, nearest

HEAD = """# Configuration keys

Generated from the schema (`src/dareu/config/`) by `python -m dareu.config.reference > docs/config.md`; a test holds
the two together. `dareu configs KEY` prints the same lines, `dareu train --print key=value …` the whole configuration
that a command composes.

A default is that of the schema: what a key has where no YAML file and no override sets it. The files under `configs/`
set others for their model, data, method or experiment; what wins is, from the weakest to the strongest: schema, model,
data, method, experiment, command line.

What `--print` prints, and the `config.yaml` of a run folder, is an experiment: as `DIR/experiment/NAME.yaml` it is
chosen by `dareu train --config-dir DIR experiment=NAME`. A block of an experiment that says its `name` is whole: the
command's own `data=`, `model=` or `method=` takes its place.
"""


def find_keys(name: str) -> list[Key]:
    """The key called `name` in all its variants and the keys below it.

    Raises:
        ConfigError: No key is called so; the message names the nearest ones, or those that end so.
    """
    every = (*schema_keys(), *tune_keys())
    keys = [key for key in every if key.path == name or key.path.startswith(f"{name}.")]
    if not keys:
        known = list(dict.fromkeys(key.path for key in every))
        known += [f"{PARAMS}.{setting}" for setting in loss_settings()]
        group, _, value = name.rpartition("=")
        if found := [g for g, names in options().items() if value in names and group in ("", g)]:
            shown = f"`dareu train {found[0]}={value} --print` shows the keys that it sets."
            raise ConfigError(f"'{name}' is no key: {value} is a value of {found[0]}=.", shown)
        ends = [path for path in known if path.rpartition(".")[2] == name.rpartition(".")[2]]
        raise ConfigError(f"There is no key '{name}'.", nearest(name, ends or known))
    return keys


_KEY = re.compile(r"( *)([A-Za-z_]\w*):(?: .*)?")


def explained(text: str, tree: dict[str, Any]) -> str:
    """The YAML `text` of the configuration `tree` with the meaning of each key behind it, as a comment.

    A key whose value goes on in the next line stays without, and so does `text` where the comments would change it.
    """
    lines, path, whole = list[str](), list[str](), text.splitlines()
    for line, following in zip(whole, [*whole[1:], ""], strict=True):
        found = _KEY.fullmatch(line)
        if found:
            path = [*path[: len(found[1]) // 2], found[2]]
            below = _KEY.fullmatch(following) or following.lstrip().startswith("- ") or not following
            meaning = _meaning(".".join(path), tree) if below else ""
            line += f"  # {meaning}" if meaning else ""
        lines.append(line)
    told = "\n".join(lines) + "\n"
    try:
        return told if yaml.safe_load(told) == yaml.safe_load(text) else text
    except yaml.YAMLError:
        return text


def _meaning(path: str, tree: dict[str, Any]) -> str:
    """What the schema says of a key in the variant that `tree` has chosen; empty for one that it does not have."""
    if path.startswith(f"{PARAMS}.") and path.count(".") == PARAMS.count(".") + 1:
        known = path.rpartition(".")[2] in loss_settings()
        return settings_of_losses(path)[0][3] if known else ""
    chosen = chosen_variant(path, tree)
    return next((key.description for key in keys_named(path) if key.variant in ("", chosen)), "")


def settings_of_losses(name: str) -> list[tuple[str, str, str, str]]:
    """The settings of losses below `method.params`, as in `lines`: all of them, or the one called `name`.

    They are no keys of the schema: each loss has its own, with the values of its YAML file.

    Raises:
        ConfigError: No loss has the setting.
    """
    values = loss_settings()
    wanted = name.removeprefix(PARAMS).strip(".")
    if wanted and wanted not in values:
        raise ConfigError(f"No loss has a setting '{wanted}'.", nearest(wanted, values))
    files = yaml_files("method")
    rows = []
    for key in [wanted] if wanted else sorted(values):
        of = values[key]
        defaults = ", ".join(f"{json.dumps(value)} ({method})" for method, value in of.items())
        texts = (files[method].read_text(encoding="utf-8") for method in of)
        said = (re.search(rf"^ +{re.escape(key)}:.*? +# (.+)$", text, re.MULTILINE) for text in texts)
        meaning = next((found[1] for found in said if found), f"see docs/methods/{next(iter(of))}.md")
        rows.append((f"{PARAMS}.{key}", "a setting of the loss", defaults, meaning))
    return rows


def page() -> str:
    """`docs/config.md`: one table for each part of the configuration and each of its variants."""
    sections: dict[str, list[Key]] = {}
    for key in (*schema_keys(), *tune_keys()):
        top = key.path.partition(".")[0] if "." in key.path or key.group else ""
        sections.setdefault(key.variant or top, []).append(key)
    parts = [HEAD]
    for title, keys in sections.items():
        leaves = [key for key in keys if not key.group]
        if not leaves:
            continue
        parts.append(f"\n## {f'`{title}`' if title else 'The run'}\n")
        above = [key.description for key in keys if key.group and key.path == title]
        parts += [f"\n{above[0][0].upper()}{above[0][1:]}.\n"] if above else []
        parts.append("\n| key | may be | default | meaning |\n| --- | --- | --- | --- |\n")
        parts += [_row(key) for key in leaves]
    return "".join(parts)


def _row(key: Key) -> str:
    default = "required" if key.required else f"`{key.default_text}`"
    cells = [f"`{key.path}`", _cell(key.allowed), default, _cell(key.description)]
    return "| " + " | ".join(cells) + " |\n"


def _cell(text: str) -> str:
    """Text in a table of Markdown: no mark-up and no end of the cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def lines(names: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """(key, what it may be, default, meaning) for each name and the keys below it."""
    params = [
        row for name in names if f"{name}.".startswith(f"{PARAMS}.") for row in settings_of_losses(name)
    ]
    schema = [name for name in names if not name.startswith(f"{PARAMS}.")]
    keys = [key for name in schema for key in find_keys(name) if not key.group]
    several = {key.path for key in keys if len({k.variant for k in keys if k.path == key.path}) > 1}
    rows = [
        (
            f"{key.path} ({key.variant})" if key.path in several or key in tune_keys() else key.path,
            key.allowed,
            key.default_text,
            key.description,
        )
        for key in keys
    ]
    return rows + params


if __name__ == "__main__":
    print(page(), end="")
