"""From Hydra's YAML files and overrides to a typed `RunConfig`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dareu.config import RunConfig, parse
from dareu.config.choices import GROUPS, config_folder, options
from dareu.config.experiments import GLOBAL, chooses_experiment, experiments, one_experiment, whole_blocks
from dareu.config.keys import allowed_values
from dareu.config.paths import INPUTS, OUTPUTS
from dareu.config.tables import leaves
from dareu.errors import ConfigError, nearest

NEVER_EMPTY = INPUTS | OUTPUTS | {"device"}

# How a path or an id of the hub is written where the name of an option stands.
GIVEN = {
    "model": "Write model=hf model.path={0}, if that is a folder or a hub id.",
    "data": "Write data=local data.path={0}, if that is a file, or data=hub data.id={0}.",
}


def compose(
    overrides: Sequence[str] = (), config_dir: str | None = None, values: Mapping[str, Any] | None = None
) -> RunConfig:
    """The run that `overrides` describe.

    `values` (dotted key → any value, such as a list of names) win over them and need no quoting.

    Raises:
        ConfigError: They describe none; the message names the nearest key, group or option.
    """
    return parse(compose_tree(overrides, config_dir, values or {}), config_dir)


def compose_tree(
    overrides: Sequence[str] = (), config_dir: str | None = None, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The composed configuration as a plain dict, not yet checked against the types."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    check_overrides(overrides, config_dir)
    blocks = whole_blocks(overrides, config_dir)
    named = {o.lstrip("+").partition("=")[0] for o in overrides}
    beside = [f"{group}={name}" for group, name in blocks.items() if group not in named]
    try:
        with hydra_started():
            tree = hydra_compose("train", overrides=[*beside, *settable(overrides), *search_path(config_dir)])
            if replaced := [group for group in blocks if group in named]:
                plain_run = [o for o in settable(overrides) if not chooses_experiment(o)]
                other = hydra_compose("train", overrides=[*plain_run, *search_path(config_dir)])
                OmegaConf.set_struct(tree, False)
                for group in replaced:
                    tree[group] = other[group]
            left = sorted(OmegaConf.missing_keys(tree) - set(values or {}))
            if left:
                raise ConfigError(f"'{left[0]}' is not set.", f"Add {left[0]}=… to the command.")
            plain: dict[str, Any] = dict(OmegaConf.to_container(tree, resolve=True))  # type: ignore[arg-type]
            plain["experiment"] = ",".join(experiments(overrides)) or None
            plain = with_recommended(plain, overrides)
            for key, value in (values or {}).items():
                if not isinstance(value, str) or key != "forget.owners":  # the types report that one
                    check_value(key, value)
                put(plain, key, value)
            return plain
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from None


def with_recommended(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The tree with what an experiment recommends for its method (`per_method: {dareu: {data_epochs: 18}}`).

    A key that the command line sets stays as it is, and so do the method's own keys beside a recommended one.
    """
    recommended = (tree.get("per_method") or {}).get(tree["method"]["name"], {})
    changed = {o.lstrip("+").partition("=")[0] for o in overrides} - {"method"}  # which chooses the method
    tree = {key: value for key, value in tree.items() if key != "per_method"}
    for key, value in leaves(recommended):
        path = f"method.{key}"
        if not any(path == one or path.startswith(f"{one}.") for one in changed):
            put(tree["method"], key, value)
    return tree


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; the types tell of one that does not exist."""
    first, _, rest = key.partition(".")
    if not rest:
        tree[first] = value
        return
    if not isinstance(tree.get(first), dict):
        tree[first] = {}
    put(tree[first], rest, value)


def as_yaml(config: RunConfig) -> str:
    """The resolved configuration, as it stands in a run folder; it can be chosen as an experiment."""
    import yaml

    tree = config.model_dump(mode="json")
    return f"{GLOBAL}\n{yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)}"


@contextmanager
def hydra_started() -> Iterator[None]:
    """Hydra for a while; what the process had set up with it before is there again afterwards."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.version import VersionBase

    before, base = GlobalHydra.instance().hydra, VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before
        VersionBase.instance().version_base = base


def search_path(config_dir: str | None) -> list[str]:
    """The override that lets Hydra look into the user's folder of YAML files, whatever signs its path has."""
    if config_dir is None:
        return []
    return [f"hydra.searchpath=[{quoted(f'file://{Path(config_dir).expanduser().resolve()}')}]"]


def quoted(text: str) -> str:
    """`text` as a value of Hydra's grammar, whatever signs it has; backslashes count double before a quote alone."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=text, quote=Quote.single).with_quotes()


def split_hydra(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """(overrides of the run, overrides of Hydra itself, such as `hydra/launcher=joblib`)."""
    hydra = [o for o in overrides if o.lstrip("+~").startswith("hydra")]
    return [o for o in overrides if o not in hydra], hydra


def settable(overrides: Sequence[str]) -> list[str]:
    """`key=value` as `++key=value`: a key that a YAML leaves at its default can be set too; types check its name."""
    plain = re.compile(r"[A-Za-z_][\w.]*=")
    accepted: list[str] = []
    for o in one_experiment(overrides):
        if o.startswith("rounds=["):  # a list does not merge into an experiment's mapping
            accepted.insert(0, "++rounds=null")
            o = f"rounds.owners={o.partition('=')[2]}"
        ours = plain.match(o) and not o.startswith("hydra") and o.partition("=")[0] not in GROUPS
        accepted.append(f"++{o}" if ours else o)
    return accepted


def check_overrides(overrides: Sequence[str], config_dir: str | None, sweep: bool = False) -> None:
    """Check overrides before Hydra reads them, whose messages are long or missing.

    Raises:
        ConfigError: An override cannot be read, a group has no such option, or several values stand without a sweep.
    """
    known = options(config_dir)
    for override in overrides:
        read = read_override(override)
        if read is None or not read.key_or_group:
            raise ConfigError(f"'{override}' cannot be read as key=value.", _readable(override, known))
        if read.is_sweep_override() and not sweep:
            raise ConfigError(
                f"'{override}' names several values.",
                "Sweep over them with `dareu train -m`, or write a [list]."
                + (f" {_readable(override, known)}" if "/" in override else ""),
            )
        name = read.key_or_group
        if read.is_delete() and name in GROUPS and name != "experiment":
            raise ConfigError(
                f"'{override}' leaves the run without {name}=.", f"Choose another one: {name}=NAME."
            )
        for value in _values(read):
            check_value(name, value)
            for choice in value if isinstance(value, list) else [value]:  # experiment=[A,B]
                if name in known and str(choice) not in known[name]:
                    cure = nearest(str(choice), known[name])
                    if name in GIVEN and re.search(r"[/.\\]", str(choice)):
                        cure = f"{GIVEN[name].format(choice)} `dareu configs` lists the names."
                    raise ConfigError(f"There is no {name} '{choice}'.", cure)


def read_override(override: str) -> Any:
    """What Hydra reads in an override; None where it cannot."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _readable(override: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """How to write an override that cannot be read."""
    key, sign, value = override.partition("=")
    if groups := [group for group, names in known.items() if override in names]:
        return f"Write {groups[0]}={override}."
    for opens, closes in ("[]", "{}"):
        if value[:1] in ("[", "{") and value.count(opens) != value.count(closes):
            more, less = (opens, closes) if value.count(opens) > value.count(closes) else (closes, opens)
            return f"A {more} has no {less}.{_fitting(key, value)}"
    if not (key and sign):
        return (
            "Beside = there is no space. Where a value has one, the whole goes in the shell's quotes: "
            "'data.path=my folder/rows.jsonl'."
        )
    plain = value and '"' not in value and value[0] not in "[{"
    example = f'"{value}"' if plain else _example(key, value, '"Zoë Ångström"')
    return (
        "Text with signs or letters beyond a to z goes in double quotes, the whole in the shell's: "
        f"'{key}={example}'."
    )


def _example(key: str, value: str, *texts: str) -> str:
    """Texts in the form that a key takes; in that which `value` begins with, where the schema does not say."""
    allowed = allowed_values(key)
    if key == "rounds" or "list of lists" in allowed:
        return f"[{','.join(f'[{text}]' for text in texts)}]"
    if "a list" in allowed or (not allowed and value[:1] == "["):
        return f"[{','.join(texts)}]"
    mapping = re.search("mapping|keys below", allowed) or (not allowed and value[:1] == "{")
    return f"{{name: {texts[0]}}}" if mapping else texts[0]


def _fitting(key: str, value: str) -> str:
    """What a key may be, and an example of that; of a key that takes neither a list nor a mapping the first alone."""
    texts = ("Jane Doe", "John Roe") if re.search("owners|persons|rounds", key) else ("one text", "another")
    example, allowed = _example(key, value, *texts), allowed_values(key)
    may_be = f" {key} must be {allowed}." if allowed and "keys below" not in allowed else ""
    if example == texts[0]:
        return may_be
    return f"{may_be} The shell cuts at spaces: the whole goes in its quotes, '{key}={example}'."


def _values(override: Any) -> list[Any]:
    """What an override sets its key to; several values of a sweep, where they are listed."""
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString

    if override.is_delete():
        return []
    value = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [] if override.is_sweep_override() else [value]
    return [v.text if isinstance(v, QuotedString) else v for v in values]


def check_value(key: str, value: Any) -> None:
    """Check what is wrong with a value whatever the other keys are.

    Raises:
        ConfigError: An empty name of a file, folder or option, and one owner in place of a list.
    """
    group = key in GROUPS or key == "hydra" or key.startswith("hydra/")
    if group and (value in (None, []) or (isinstance(value, list) and None in value)):
        raise ConfigError(f"{key}= names nothing.", f"Leave {key}= out, or name one.")
    if value == "" and (key in GROUPS or key.rpartition(".")[2] in NEVER_EMPTY):
        raise ConfigError(
            f"{key} is empty.",
            f"Give it a value, or leave {key}= out. (Is a variable of the shell unset, or a space after =?)",
        )
    if key == "forget.owners" and isinstance(value, str):
        raise ConfigError(
            "forget.owners takes a list of owners.",
            f"Write 'forget.owners=[{value}]', several owners with commas: [A,B].",
        )


def explain(error: Exception) -> ConfigError:
    """Hydra's message in one line."""
    said = " ".join(str(error).split())[:300]
    cure = "Overrides look like key=value; `dareu configs` shows what can be chosen."
    if "interpolation" in said.lower():
        cure = "${…} stands for the value of another key; where a text has these signs, write \\${…}."
    return ConfigError(f"The configuration cannot be composed: {said}", cure)
