"""All keys of the schema: described, within a range, with one default, and one message for a value that is wrong."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from pydantic import BaseModel

from dareu.cli.commands import main
from dareu.config import RunConfig, parse
from dareu.config.compose import compose, config_folder
from dareu.config.keys import UNIONS, Key, allowed_values, in_words, schema_keys, tune_keys
from dareu.config.paths import INPUTS, OUTPUTS
from dareu.config.reference import page
from dareu.errors import ConfigError
from dareu.tuning.options import objectives

NUMBERS = [key for key in schema_keys() if key.bounds is not None]


def test_every_key_is_described() -> None:
    assert len({key.path for key in schema_keys() if not key.group}) >= 207
    assert len(tune_keys()) == 8
    assert not [key.path for key in (*schema_keys(), *tune_keys()) if len(key.description) < 8]


def test_every_key_that_names_a_file_or_folder_is_known_as_one() -> None:
    words = re.compile(r"\b(folder|file|store)\b")
    told = {
        key.path.rpartition(".")[2]
        for key in schema_keys()
        if "text" in key.allowed and words.search(key.description)
    }
    names = {"experiment", "loss", "owner"}  # of a choice or a column; their descriptions speak of a file
    assert told - names == INPUTS | OUTPUTS and names < told


def test_the_reference_names_every_objective_of_a_search() -> None:
    (key,) = (key for key in tune_keys() if key.path == "objective")
    assert set(re.split(r", | or ", key.description.partition(": ")[2])) == set(objectives())


def test_a_list_of_lists_is_in_the_plural() -> None:
    assert allowed_values("rounds.owners") == "a list of lists of text, or null"
    assert allowed_values("forget.owners") == "a list of text, or null"
    numbers = {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 1}}}
    assert in_words(numbers, {}) == "a list of lists of whole numbers at least 1"


def test_every_number_has_a_range() -> None:
    open_ended = [
        key.path
        for key in NUMBERS
        if key.bounds is not None and not ({"ge", "gt"} & set(key.bounds) and {"le", "lt"} & set(key.bounds))
    ]
    assert len(NUMBERS) > 90 and not open_ended


def nested(path: str, value: Any) -> dict[str, Any]:
    tree = value
    for part in reversed(path.split(".")):
        tree = {part: tree}
    return dict(tree)


def with_value(key: Key, value: Any) -> dict[str, Any]:
    """A configuration of the key's variant in which only this key is set."""
    tree = nested(key.path, value)
    if key.variant:
        name, _, tag = key.variant.partition("=")
        top = name.partition(".")[0]
        tree[top] |= {UNIONS[top]: tag}
        if top == "method":
            tree[top] |= {"name": "mine"} | ({"loss": "npo"} if tag == "loss" else {})
        if key.path == "data.path" or tag in ("local", "hf"):
            tree[top].setdefault("path", "some/path")
    if key.path.startswith("rounds") and key.path != "rounds.count":
        tree["rounds"]["count"] = 2
    return tree


@pytest.mark.parametrize("key", NUMBERS, ids=lambda key: f"{key.path}[{key.variant}]")
def test_a_number_out_of_range_has_one_message(key: Key) -> None:
    bounds = key.bounds or {}
    low, high = bounds.get("ge", bounds.get("gt", 0)), bounds.get("le", bounds.get("lt", 0))
    wrong: list[Any] = [
        math.inf,
        -math.inf,
        math.nan,
        True,
        low - 1,
        high + 1,
        10**30,
        "many",
        "",
        {},
        {"a": 1},
    ]
    wrong += [low] if "gt" in bounds else []
    wrong += [high] if "lt" in bounds else []
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            parse(with_value(key, value))
        text = str(caught.value)
        assert f"'{key.path}' must be " in text and "\n" not in text
        assert text.count("must be") == 1 and key.allowed in text


@pytest.mark.parametrize("key", NUMBERS, ids=lambda key: f"{key.path}[{key.variant}]")
def test_the_bounds_themselves_are_read(key: Key) -> None:
    """A range that no value fits would pass the test above. Checks across keys may object, but not to the number."""
    for name in ("ge", "le"):
        if name in (key.bounds or {}):
            try:
                parse(with_value(key, (key.bounds or {})[name]))
            except ConfigError as error:
                assert f"'{key.path}' must be" not in str(error)


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {k: v for name, child in tree.items() for k, v in flat(child, f"{path}.{name}".strip(".")).items()}


def test_the_default_run_is_the_schemas_defaults_key_by_key() -> None:
    composed, defaults = flat(compose([]).model_dump()), flat(RunConfig().model_dump())
    composed = {k: v for k, v in composed.items() if not k.startswith("method.search.")}
    defaults.pop("method.search")
    assert len(composed) > 120
    assert composed == defaults


def test_one_key_of_the_pretraining_leaves_its_others() -> None:
    """The two phases have defaults of their own; a rate of one of them changes nothing else."""
    bare = flat(parse({}).model_dump())
    one = flat(parse({"model": {"name": "tiny", "pretrain": {"answers": {"lr": 1e-4}}}}).model_dump())
    assert bare["model.pretrain.answers.batch_size"] == 32 and bare["model.pretrain.openings.steps"] == 110
    assert {k for k in one if one[k] != bare[k]} == {"model.pretrain.answers.lr"}


def test_a_default_does_not_depend_on_what_stands_beside_it() -> None:
    """Setting one key of a group leaves the others at the defaults that the reference states."""

    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            if isinstance(field.default, BaseModel) and name not in UNIONS:
                assert field.default == type(field.default)(), f"{model.__name__}.{name}"
                walk(type(field.default))

    walk(RunConfig)
    own = parse({"method": {"kind": "loss", "name": "mine", "loss": "npo", "optim": {"lr": 1e-5}}}).method
    bare = parse({"method": {"kind": "loss", "name": "mine", "loss": "npo"}}).method
    stated = {key.path: key.default for key in schema_keys() if key.variant in ("", "method.kind=loss")}
    for method, lr in ((own, 1e-5), (bare, stated["method.optim.lr"])):
        tree = flat(method.model_dump(), "method") | {"method.optim.lr": lr}
        assert tree["method.optim.epochs"] == stated["method.optim.epochs"] == 5
        assert tree["method.optim.scheduler"] == stated["method.optim.scheduler"] == "constant"
        assert tree["method.optim.lr"] == lr


def test_the_page_is_current_and_has_every_key() -> None:
    written = (config_folder().parent / "docs" / "config.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m dareu.config.reference > docs/config.md"
    assert all(f"| `{key.path}` |" in written for key in (*schema_keys(), *tune_keys()) if not key.group)


def test_a_key_is_explained_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "method.reward.kl", "model.max_length"]) == 0
    out = capsys.readouterr().out
    assert "method.reward.kl  a number from 0 to 1000; default 0.1\n    λ: weight" in out
    assert "model.max_length (model.name=tiny)  a whole number from 8 to 1000000; default 128" in out
    assert "model.max_length (model.name=hf)  a whole number from 8 to 1000000; default 512" in out
    assert main(["configs", "forget"]) == 0
    assert capsys.readouterr().out.count("forget.") >= 4
    assert main(["configs", "trials"]) == 0
    told = (
        "trials (dareu tune)  a whole number from 1 to 1000000; default 8\n    settings tried for each method"
    )
    assert told in capsys.readouterr().out
    assert main(["configs", "method.params.skip"]) == 0
    assert (
        capsys.readouterr().out
        == "method.params.skip  a setting of the loss; default 0 (shred)\n    see docs/methods/shred.md\n"
    )
    assert main(["configs", "method.params"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("method.params  a mapping; default {}") and "method.params.beta  a setting" in out
    assert main(["configs", "method.params.betta"]) == 2
    assert "No loss has a setting 'betta'." in capsys.readouterr().err
    assert main(["configs", "method.gama"]) == 2
    assert "There is no key 'method.gama'." in capsys.readouterr().err
