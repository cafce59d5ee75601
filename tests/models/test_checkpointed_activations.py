"""`model.gradient_checkpointing`: blocks are computed twice in training, and nothing else changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_fixture import train
from ppo_fixture import column, config, largest_difference, original, unlearn, weights, with_lora

from dareu.config.compose import compose
from dareu.models.load import checkpoint_activations, freeze_original
from dareu.workflow.prepare import _base


def policy(adapter: bool, checkpointed: bool) -> Any:
    """A copy of the original, with dropout in its adapter where it has one."""
    found = with_lora(original()[0], dropout=0.1) if adapter else copy.deepcopy(original()[0])
    if checkpointed:
        checkpoint_activations(found)
    return found


def counted(model: Any) -> list[bool]:
    """One entry for each pass through the block's feed-forward layer from now on: whether it is part of a graph."""
    calls: list[bool] = []
    (layer,) = (m for n, m in model.named_modules() if n.endswith("layers.0.mlp"))
    layer.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    return calls


@pytest.mark.parametrize("adapter", [False, True])
def test_loss_trainer(tmp_path: Path, adapter: bool) -> None:
    """Each block is passed once more in each of four steps, and weights and log stay the same to the last bit."""
    runs = {}
    for on in (False, True):
        model = policy(adapter, on)
        reference = freeze_original(model)
        calls = counted(model)
        options: dict[str, Any] = {"policy": model, "reference": reference, "retain": "nll"}
        _, work = train(tmp_path / str(on), "npo", **options)
        runs[on] = (weights(model), column(work, "forget_loss"), sum(calls))
    # forget and retain rows, in four steps
    assert runs[False][2] == 8 and runs[True][2] == 16
    assert largest_difference(runs[False][0], runs[True][0]) == 0
    assert runs[False][1] == runs[True][1]
    assert largest_difference(runs[True][0], weights(policy(adapter, False)) | _frozen(runs[True][0])) > 1e-4


def _frozen(found: dict[str, Any]) -> dict[str, Any]:
    """The reference's adapter, which an untrained policy has not."""
    return {name: value for name, value in found.items() if ".original." in name}


@pytest.mark.parametrize("adapter", [False, True])
def test_rl_trainer(tmp_path: Path, adapter: bool) -> None:
    """The same rollouts, rewards and weights; passes with a graph are made twice."""
    runs = {}
    for on in (False, True):
        model = policy(adapter, on)
        reference = freeze_original(model)
        calls = counted(model)
        method = config(data_epochs=1, updates_per_batch=2, reward={"kl": 0.1})
        _, _, work = unlearn(tmp_path / str(on), method, policy=model, reference=reference)
        runs[on] = (weights(model), column(work, "reward") + column(work, "distill"), sum(calls))
    assert runs[True][2] == 2 * runs[False][2] > 0
    assert largest_difference(runs[False][0], runs[True][0]) == 0
    assert runs[False][1] == runs[True][1]


def test_evaluation_and_the_frozen_original_are_not_checkpointed() -> None:
    model = policy(True, True)
    freeze_original(model)
    calls = counted(model)
    ids = torch.tensor([[3, 7, 9]])
    model.eval()
    model(input_ids=ids).logits.sum().backward()
    assert calls == [True]


def test_it_is_in_no_content_key(tmp_path: Path) -> None:
    from pipeline_fixture import folk, tiny_hub_model, write_lines

    from dareu.workflow.prepare import load_corpus

    folder = tiny_hub_model(tmp_path / "hub", template=True)
    write_lines(tmp_path / "mine.jsonl", folk())
    columns = [f"data.columns.{k}={v}" for k, v in (("prompt", "question"), ("response", "answer"))]
    base = ["data=local", f"data.path={tmp_path / 'mine.jsonl'}", *columns, "data.columns.owner=person"]
    base += ["model=hf", f"model.path={folder}", "forget.count=1"]
    runs = [compose([*base, f"model.gradient_checkpointing={on}"]) for on in ("false", "true")]
    keys = [_base(run, load_corpus(run.data), None) for run in runs]
    assert keys[0] == keys[1] and "gradient_checkpointing" not in keys[0]
