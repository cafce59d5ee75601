"""The best weights by a score are kept, whatever comes after them; a kill loses neither them nor their score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loss_fixture import train

from dareu.evaluation.validation_score import closeness
from dareu.training.best_weights import BestWeights
from dareu.training.common import Work


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))


def scored(net: Any) -> dict[str, float]:
    return {"score": -((float(net.weight[0].detach()) - 3) ** 2)}  # best at 3


def walk(best: BestWeights, net: Net, steps: range) -> None:
    for step in steps:
        with torch.no_grad():
            net.weight[:] = step
        best.step(net, step)


def test_the_best_of_those_looked_at_is_put_back(tmp_path: Path) -> None:
    net = Net().train()
    best = BestWeights(tmp_path, 2, scored)
    walk(best, net, range(1, 8))
    assert [row["step"] for row in best.rows] == [2, 4, 6] and net.training
    found = best.finish(net, 7)
    assert found["step"] == 2 and found["score"] == -1.0  # 2 and 4 are equally near to 3: the earlier one
    assert net.weight.tolist() == [2, 2]
    assert [row["step"] for row in found["evaluations"]] == [2, 4, 6, 7]


def test_the_last_weights_may_be_the_best(tmp_path: Path) -> None:
    net, best = Net(), BestWeights(tmp_path, 2, scored)
    walk(best, net, range(1, 4))
    assert best.finish(net, 3)["step"] == 3
    assert net.weight.tolist() == [3, 3]


def test_an_interrupted_run_looks_at_no_step_twice(tmp_path: Path) -> None:
    net = Net()
    walk(BestWeights(tmp_path, 2, scored), net, range(1, 6))
    calls: list[float] = []

    def counted(net: Any) -> dict[str, float]:
        calls.append(float(net.weight[0].detach()))
        return scored(net)

    resumed = BestWeights(tmp_path, 2, counted)
    walk(resumed, net, range(3, 8))  # from a checkpoint at step 2
    assert calls == [6.0]
    assert resumed.finish(net, 7)["step"] == 2 and net.weight.tolist() == [2, 2]
    assert BestWeights(tmp_path, 2, counted).finish(net, 7)["step"] == 2  # killed after it was finished


def test_a_trainer_looks_while_it_trains(tmp_path: Path) -> None:
    seen: list[int] = []

    def score(policy: Any) -> dict[str, float]:
        assert not policy.training
        seen.append(1)
        return {"score": -float(len(seen))}  # the first is the best

    work = Work(tmp_path, best=BestWeights(tmp_path, 2, score))
    policy, _ = train(tmp_path, "gradient_ascent", work=work, optim={"epochs": 2, "batch_size": 1})
    assert work.best is not None
    looked = [row["step"] for row in work.best.rows]
    assert looked == [2, 4, 6]  # two passes over three rows
    before = {n: p.detach().clone() for n, p in policy.named_parameters()}
    assert work.best.finish(policy, 99)["step"] == 2
    assert any(not torch.equal(before[n], p) for n, p in policy.named_parameters())


def test_closeness_by_hand() -> None:
    target = {"forget": 0.4, "retain": 0.9, "broken": 0.1}
    assert closeness(target, target) == 1.0
    found = {"forget": 0.6, "retain": 0.8, "broken": 0.35}
    assert closeness(found, target) == pytest.approx(0.8 * 0.9 * 0.75)
    assert closeness(found | {"broken": 0.0}, target) == pytest.approx(
        0.8 * 0.9
    )  # fewer broken ones are no fault
