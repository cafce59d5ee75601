"""Resumed runs under adapters, with a Trainer that reads the folders in a checkpoint and not the policy beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loss_fixture import cut_off, train
from ppo_fixture import largest_difference, original, weights, with_lora
from transformers import Trainer

from dareu.models.files import ADAPTER
from dareu.models.load import ORIGINAL, POLICY, freeze_original


def folders_alone(trainer: Any, folder: str, model: Any = None) -> None:
    """What transformers up to 5.20 reads of a checkpoint that holds several adapters."""
    model = model or trainer.model
    for inner in Path(folder).iterdir():
        if (inner / ADAPTER).is_file():
            model.load_adapter(str(inner), inner.name, is_trainable=inner.name == POLICY)
    model.set_adapter(POLICY)


@pytest.mark.parametrize("old", [True, False])
def test_the_policys_own_adapter_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    if old:
        monkeypatch.setattr(Trainer, "_load_from_checkpoint", folders_alone)

    def options() -> dict[str, Any]:
        policy = with_lora(original()[0], dropout=0.1)
        reference = freeze_original(policy)
        optim = {"save_every": 1, "lr": 1e-2}
        return {"policy": policy, "reference": reference, "retain": "kl", "optim": optim}

    whole, work = train(tmp_path / "whole", "npo", **options())
    cut_off(tmp_path / "cut", "npo", 2, **options())
    assert (tmp_path / "cut" / "checkpoints" / "checkpoint-2" / ORIGINAL / ADAPTER).is_file()
    torch.manual_seed(12345)  # another process has another random state
    resumed, again = train(tmp_path / "cut", "npo", **options())
    assert largest_difference(weights(whole), weights(resumed)) == 0 and work.log == again.log
    trained = {name for name, p in resumed.named_parameters() if p.requires_grad}
    assert trained and all(f".{POLICY}." in name for name in trained)
