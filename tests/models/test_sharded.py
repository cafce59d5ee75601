"""Weights cut up by FSDP2 are saved whole; which engine the launcher has chosen, and what it asks of the method.

The file is its own worker: `python test_sharded.py FOLDER` cuts up a model over two processes (gloo) and saves it.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ppo_fixture import original
from processes_fixture import two_processes

from dareu.config.compose import compose, config_folder
from dareu.errors import ConfigError
from dareu.models.load import load_model, save_model
from dareu.models.processes import engine, full_weights, whole_weights
from dareu.workflow.validate import check_engine

ACCELERATE = sorted((config_folder() / "accelerate").glob("*.yaml"))


def save_in_parts(folder: Path) -> None:
    """Cut up the model of a few words, train a step, and save it."""
    from torch.distributed.fsdp import fully_shard

    from dareu.models.processes import connect

    connect()
    model, tokenizer = original()
    for block in model.model.layers:
        fully_shard(block)
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.tensor([[3, 4, 7], [3, 5, 8]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert type(next(model.parameters())).__name__ == "DTensor"
    save_model(model, tokenizer, folder / "saved")
    assert (full_weights(model) == {}) == (os.environ["RANK"] == "1")


def test_cut_weights_are_saved_whole(tmp_path: Path) -> None:
    with two_processes(__file__, tmp_path):
        pass
    model = copy.deepcopy(original()[0])
    ids = torch.tensor([[3, 4, 7], [3, 5, 8]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    saved, _ = load_model(tmp_path / "saved")
    for (name, mine), theirs in zip(model.named_parameters(), saved.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5), name


def test_nothing_is_gathered_where_nothing_is_cut() -> None:
    assert full_weights(original()[0]) is None


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "ddp"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3"),
    ],
)
def test_which_engine_and_which_methods(
    environment: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert engine() == name
    with whole_weights():
        assert engine() == "ddp"
    assert engine() == name
    for method, whole in {
        "npo": False,
        "dareu": True,
        "rmu": True,
        "undo": True,
    }.items():
        config = compose([f"method={method}"])
        if whole and name != "ddp":
            with pytest.raises(ConfigError, match=f"method={method} needs the whole model .* {name}"):
                check_engine(config)
        else:
            check_engine(config)
    muon = compose(["method=counterfactual"])
    if name == "ddp":
        check_engine(muon)
    else:
        with pytest.raises(ConfigError, match=f"whole matrices, and {name}"):
            check_engine(muon)
        check_engine(compose(["method=counterfactual", "method.optim.name=adamw"]))


def test_the_shipped_configurations_choose_what_they_say() -> None:
    chosen: dict[str, Any] = {path.stem: yaml.safe_load(path.read_text()) for path in ACCELERATE}
    assert {name: tree["distributed_type"] for name, tree in chosen.items()} == {
        "ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED",
    }  # fmt: skip
    assert chosen["fsdp2"]["fsdp_config"]["fsdp_version"] == 2
    assert [chosen[f"zero{n}"]["deepspeed_config"]["zero_stage"] for n in (2, 3)] == [2, 3]


if __name__ == "__main__":
    import conftest  # noqa: F401  one thread, no hub

    save_in_parts(Path(sys.argv[1]))
