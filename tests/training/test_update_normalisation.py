"""What an update is made of: token shares of micro-batches, shipped advantages, the value clip, distillation."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from ppo_fixture import Spy, column, config, encoded, give, largest_difference, original, unlearn, with_lora
from torch import Tensor
from trl import GRPOTrainer

from dareu.config.compose import compose
from dareu.training import losses
from dareu.training.critic import Critic
from dareu.training.rl_trainer import RLTrainer

UNLIKE = ["<end>", "the secret <end>", "the word is plum", "plain <end>"]  # of one to four tokens
RETAIN = {
    "ask red one": "the word is nut",
    "ask red two": "fig",
    "red three": "plain word",
    "ask one": "pear",
}


def gradients(folder: Path, monkeypatch: pytest.MonkeyPatch, micro: int | None) -> dict[str, Tensor]:
    """Of policy and critic at the end of the first update on twelve rollouts."""
    found: dict[str, Tensor] = {}
    step = RLTrainer.training_step

    def spy(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        loss = step(trainer, *args, **kwargs)
        if trainer._step == trainer.args.gradient_accumulation_steps:
            for who, model in (("policy", trainer.model), ("critic", trainer.critic)):
                found.update({f"{who}.{n}": p.grad.clone() for n, p in model.named_parameters()})
        return loss

    give(monkeypatch, UNLIKE)
    monkeypatch.setattr(RLTrainer, "training_step", spy)
    method = config(
        data_epochs=1, updates_per_batch=1, retain_batch_size=12, kl_loss=0.5, entropy_coef=0.01,
        optim={"micro_batch_size": micro},
    )  # fmt: skip
    torch.manual_seed(0)
    unlearn(folder, method, retain_rows=encoded(original()[1], RETAIN), critic=_critic())
    return found


def _critic() -> Critic:
    """One whose head is not zero, so that its backbone has a gradient too."""
    from ppo_fixture import make_critic

    critic = make_critic(original()[1])
    torch.nn.init.normal_(critic.head.weight, std=0.5, generator=torch.Generator().manual_seed(2))
    return critic


@pytest.mark.parametrize("micro", [1, 4])
def test_the_gradient_does_not_depend_on_the_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro: int
) -> None:
    whole = gradients(tmp_path / "whole", monkeypatch, None)
    parts = gradients(tmp_path / "parts", monkeypatch, micro)
    size = max(float(g.abs().max()) for g in whole.values())
    assert size > 1e-3
    assert largest_difference(whole, parts) < 1e-4 * size


def test_shipped_advantages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences, γ .6, times 4 and not times (1 − γ): by hand for "the secret <end>".

    Scores .02, .95, .95 with .02 for an empty text; χ(.95) = −1 and χ(.02) = ln(.98)/1.05, so that the one reward is
    −1 − χ(.02) at "secret". The critic begins at zero.
    """
    shipped = compose([]).method.model_dump()
    assert shipped["reward"]["credit"] == "difference"
    give(monkeypatch, ["the secret <end>"])
    spy = Spy(monkeypatch, temperature=1.0)
    unlearn(tmp_path, config(data_epochs=1, reward={"credit": "difference"}, advantage=shipped["advantage"]))
    reward = -1 - math.log(0.98) / 1.05
    expected = [4 * 0.6 * reward, 4 * reward, 0.0]
    assert spy.batches[0]["advantages"][0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_value_clip_is_a_key_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float | None
) -> None:
    seen: list[Any] = []
    loss = losses.value_loss
    monkeypatch.setattr(losses, "value_loss", lambda *args: seen.append(args[4]) or loss(*args))
    unlearn(tmp_path, config(data_epochs=1, updates_per_batch=2, **({"value_clip": clip} if clip else {})))
    assert seen == [clip] * 2
    # without a clip ½ (V − R)², however far the value moved
    values, old, returns = (torch.tensor([[v]]) for v in (1.5, 0.0, 2.0))
    assert float(loss(values, old, returns, torch.ones(1, 1), None)) == pytest.approx(0.125)


def test_the_critic_has_no_dropout_in_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[tuple[bool, bool]] = []
    forward = Critic.forward

    def spy(critic: Critic, *args: Any, **kwargs: Any) -> Any:
        modes.append((critic.training, torch.is_grad_enabled()))
        return forward(critic, *args, **kwargs)

    monkeypatch.setattr(Critic, "forward", spy)
    unlearn(tmp_path, config(data_epochs=1, updates_per_batch=2))
    assert modes == [(False, False), (False, True), (False, True)]


def test_distillation_beside_every_second_update(tmp_path: Path) -> None:
    _, _, work = unlearn(tmp_path, config(data_epochs=1, updates_per_batch=4, distill_every=2))
    assert [row["step"] for row in work.log if "distill" in row] == [1, 3]
    assert len(column(work, "reward")) >= 1


@pytest.mark.parametrize(("vllm", "merged"), [(True, False), (False, True)])
def test_vllm_samples_without_merging(monkeypatch: pytest.MonkeyPatch, vllm: bool, merged: bool) -> None:
    """vLLM has weights of its own; merging the adapter here would cost time and rounding for nothing."""
    policy = with_lora(original()[0])
    trainer = object.__new__(RLTrainer)
    vars(trainer).update(
        model=policy,
        use_vllm=vllm,
        method=SimpleNamespace(merge_rollouts=True, offpolicy=0.0),
        accelerator=SimpleNamespace(unwrap_model=lambda model: model),
    )
    seen: list[bool] = []

    def single(trainer: Any, *args: Any) -> tuple[list[list[int]], None]:
        seen.append(any(m.merged for m in trainer.model.modules() if isinstance(m, BaseTunerLayer)))
        return [[1]], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", single)
    trainer._generate_single_turn([[1]])
    assert seen == [merged]
