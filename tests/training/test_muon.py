"""Muon with AdamW as one optimizer: which weights are whose, how far a step goes, schedules and checkpoints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from ppo_fixture import original, with_lora
from torch import nn

from dareu.errors import ConfigError
from dareu.training.muon import REST, MuonWithAdamW, matrices_and_others


def model_and_optimizer(lr: float = 0.03) -> tuple[Any, MuonWithAdamW]:
    model = copy.deepcopy(original()[0])
    return model, MuonWithAdamW(model, lr)


def steps(model: Any, optimizer: Any, count: int, schedule: Any = None) -> None:
    ids = torch.tensor([[3, 4, 7], [3, 5, 8]])
    for _ in range(count):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if schedule:
            schedule.step()


def test_embeddings_head_and_vectors_are_adamws() -> None:
    model = original()[0]
    names = {id(p): name for name, p in model.named_parameters()}
    matrices, others = ([names[id(p)] for p in found] for found in matrices_and_others(model))
    assert all(name.endswith("proj.weight") for name in matrices)
    assert all("embed" in name or "lm_head" in name or "norm" in name for name in others)
    assert len(matrices) == 7 * model.config.num_hidden_layers
    assert len(matrices) + len(others) == len(names)


def test_of_an_adapter_the_factors_are_muons_and_frozen_weights_nobodys() -> None:
    model = with_lora(copy.deepcopy(original()[0]))
    matrices, others = matrices_and_others(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert matrices and not others and len(matrices) == len(trained) < len(list(model.parameters()))


def test_a_step_moves_all_directions_of_a_matrix_alike() -> None:
    """A gradient of singular values 9 and 1 gives a step whose own differ by less than half, as long as .2 · lr ·
    √(larger side); AdamW's first step is its rate, whatever the gradient."""

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(2, 4, bias=True)

        def get_output_embeddings(self) -> None:
            return None

    model = Tiny()
    before = model.hidden.weight.detach().clone()
    bias = model.hidden.bias.detach().clone()
    optimizer = MuonWithAdamW(model, lr=0.1)
    gradient = torch.zeros(4, 2)
    gradient[0, 0], gradient[1, 1] = 9.0, 1.0
    model.hidden.weight.grad, model.hidden.bias.grad = gradient, torch.tensor([5.0, -0.01, 1.0, 2.0])
    optimizer.step()
    moved = before - model.hidden.weight.detach()
    sizes = torch.linalg.svdvals(moved) / (0.1 * 0.2 * 2)  # √4 = 2
    assert sizes.min() > 0.5 and sizes.max() < 1.3  # Newton and Schulz's iteration ends between .7 and 1.2
    assert (moved * gradient).sum() > 0
    assert (bias - model.hidden.bias.detach()).tolist() == pytest.approx(
        [0.1 * REST, -0.1 * REST, 0.1 * REST, 0.1 * REST], rel=1e-3
    )


def test_a_schedule_changes_the_rates_of_both() -> None:
    model, optimizer = model_and_optimizer(lr=0.3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    steps(model, optimizer, 1, schedule)
    kept = [p.detach().clone() for p in model.parameters()]
    assert [g["lr"] for part in optimizer.parts for g in part.param_groups] == [0.0, 0.0, 0.0]
    steps(model, optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))


def test_a_saved_state_goes_on_as_if_never_saved() -> None:
    (whole, first), (cut, second) = model_and_optimizer(), model_and_optimizer()
    steps(whole, first, 4)
    steps(cut, second, 2)
    _, third = cut, MuonWithAdamW(cut, 0.03)
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    steps(cut, third, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))
    assert third.state and all(part.state is third.state for part in third.parts)


def test_nothing_to_train_is_an_error() -> None:
    model = copy.deepcopy(original()[0]).requires_grad_(False)
    with pytest.raises(ConfigError, match="none of the model's is trained") as error:
        MuonWithAdamW(model, 0.1)
    assert "adamw" in error.value.cure
