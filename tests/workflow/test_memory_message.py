"""Where memory is used up, one message names the keys that lower it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pipeline_fixture import SMALL

from dareu.cli.commands import main
from dareu.training import loss_trainer


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_the_stage_and_its_keys_are_named(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(loss_trainer, "train_with_loss", full)
    assert main([command, *SMALL, f"cache_dir={tmp_path / 'store'}", f"run_dir={tmp_path / 'run'}"]) == 2
    told = capsys.readouterr().err
    assert "not enough memory for the stage 'original model'" in told and "Traceback" not in told
    assert "finetune.micro_batch_size" in told and "model.max_length" in told
