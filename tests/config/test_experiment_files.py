"""A configuration that was printed or that lies in a run folder, chosen as an experiment."""

from __future__ import annotations

from pathlib import Path

import pytest

from dareu.cli.commands import main
from dareu.config.compose import as_yaml, compose
from dareu.errors import ConfigError

COMMANDS = [
    ["method=npo", "seed=7", "forget.count=3"],
    ["data=sotu", "data.presidents=5", "method=simnpo", "method.params.beta=3"],
    ["data=tofu", "data.path=x", "model=qwen3_0_6b", "method=rule"],
    ["data=hub", "data.id=a/b", "data.columns.owner=who", "model=llama2_7b_chat", "method=task_vector"],
    ["data=authors_classic", "model.layers=1", "method=scurenewton", "evaluation=full"],
]


def kept(folder: Path, name: str, text: str) -> str:
    """The text as the experiment `name` of a folder of the user's own; that folder."""
    (folder / "experiment").mkdir(exist_ok=True)
    (folder / "experiment" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_it_gives_the_same_run(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose(command)
    assert main(["train", "--print", *command]) == 0
    for name, text in (("printed", capsys.readouterr().out), ("stored", as_yaml(config))):
        again = compose([f"experiment={name}"], kept(tmp_path, name, text))
        assert again.experiment == name
        assert again.model_copy(update={"experiment": None}) == config


def test_another_option_takes_the_place_of_a_whole_block(tmp_path: Path) -> None:
    mine = kept(tmp_path, "mine", as_yaml(compose(["method=npo", "seed=7", "data.owners=9"])))
    for other in (["data=sotu"], ["data=authors_classic"], ["method=simnpo"], ["method=dareu"]):
        changed = compose(["experiment=mine", *other], mine)
        group = other[0].partition("=")[0]
        assert getattr(changed, group) == getattr(compose(other), group) and changed.seed == 7
    both = compose(["experiment=mine", "data=lume", "data.task=1", "method.optim.lr=1e-4"], mine)
    assert (both.data, both.method.name, both.method.optim.lr) == (  # type: ignore[union-attr]
        compose(["data=lume", "data.task=1"]).data, "npo", 1e-4,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"'data\.id' is not set"):
        compose(["experiment=mine", "data=hub"], mine)


def test_a_block_without_a_name_goes_with_any_option(tmp_path: Path) -> None:
    mine = kept(tmp_path, "mine", "# @package _global_\nmethod: {optim: {lr: 1.0e-5}}\n")
    assert compose(["experiment=mine", "method=simnpo"], mine).method.optim.lr == 1e-5  # type: ignore[union-attr]


def test_a_file_whose_keys_would_go_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml has no line '# @package _global_'"):
        compose(["experiment=mine"], kept(tmp_path, "mine", "seed: 7\n"))


def test_the_experiment_is_in_the_configuration() -> None:
    assert compose(["experiment=rounds"]).experiment == "rounds"
    assert (
        compose(["experiment=authors_classic", "+experiment=rounds"]).experiment == "authors_classic,rounds"
    )
    assert compose([]).experiment is None
