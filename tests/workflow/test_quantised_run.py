"""A run with QLoRA on the command line: 4-bit weights below an adapter, from fine-tuning to the exported model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pipeline_fixture import DATA, TRAINING, figures, kill_at, results, tiny_hub_model, train

from dareu.cli.commands import main
from dareu.models.load import load_model

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    base = tiny_hub_model(tmp_path_factory.mktemp("hub") / "base", template=True, context=256)
    model = ["model=hf", f"model.path={base}", "model.quantization=nf4", "model.lora.r=4", "device=cpu"]
    return ["method=npo", "method.optim.steps=4", *DATA, *TRAINING, "finetune.epochs=3", *model]


def test_a_run_in_4_bits_goes_on_after_a_kill_and_its_export_has_all_bits(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = figures(train(tmp_path / "store", tmp_path / "run", base=settings))
    assert whole["models"]["unlearned"]["forget"]["probability"] > 0
    again = [f"cache_dir={tmp_path / 'other'}", f"run_dir={tmp_path / 'again'}"]
    steps = [*settings, *again, "method.optim.save_every=1"]
    kill_at(".work/unlearned/*/checkpoints/checkpoint-2/complete", tmp_path / "other", "train", *steps)
    assert main(["train", *steps]) == 0
    resumed = figures(results(tmp_path / "again"))
    assert {k: v for k, v in resumed.items() if k in ("models", "knowledge_left")} == {
        k: v for k, v in whole.items() if k in ("models", "knowledge_left")
    }
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run"), "--json"]) == 0
    exported, tokenizer = load_model(json.loads(capsys.readouterr().out)["model"])
    wanted, _ = load_model(tmp_path / "run" / "model")  # the adapter on the base as it is stored
    ids = tokenizer("Where was she born?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(exported(ids).logits, wanted(ids).logits, atol=1e-4)
    assert all(p.is_floating_point() for p in exported.parameters())


def test_weights_in_4_bits_are_another_model_and_less_memory(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans = []
    for kind in ("nf4", "null"):
        where = [f"cache_dir={tmp_path}", f"model.quantization={kind}"]
        assert main(["train", *settings, *where, "--dry-run", "--json"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    quantised, plain = plans
    assert quantised["memory_mib"]["weights"] < plain["memory_mib"]["weights"]
    keys = [
        [stage["key"] for stage in plan["stages"] if stage["stage"] == "original model"] for plan in plans
    ]
    assert len(keys[0]) == 1 and keys[0] != keys[1]
