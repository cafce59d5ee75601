"""The numbers that PPO logs, and what they are made of: ratio, loss, KL, reward and its guards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import Spy, column, config, give, original, ppo_loss, response_logps, unlearn, with_lora

from dareu.training.common import Work
from dareu.training.rl_trainer import RLTrainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Four batches, four updates on each."""
    return unlearn(tmp_path_factory.mktemp("ppo"), config(distill=2.0))[2]


# --- the ratio to the old policy ------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [None, 0.3])
def test_ratio_is_one_before_the_first_update(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dropout: float | None
) -> None:
    """At the sampling temperature, and with an adapter that has dropout."""
    spy = Spy(monkeypatch, temperature=0.6)
    method = config(temperature=0.6, updates_per_batch=2, data_epochs=2)
    policy = None if dropout is None else with_lora(original()[0], dropout)
    _, _, work = unlearn(tmp_path, method, policy=policy)
    firsts = [0, 2]
    for step, (batch, now) in enumerate(zip(spy.batches, spy.now, strict=True)):
        apart = float(((now - batch["old_per_token_logps"]) * batch["completion_mask"]).abs().max())
        assert apart < 1e-5 if step in firsts else apart > 1e-3
    assert column(work, "kl_original")[0] == pytest.approx(0, abs=1e-6)
    assert [column(work, "clip_fraction")[i] for i in firsts] == [0, 0]


def test_loss_is_the_clipped_surrogate_over_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without critic and distillation; responses of one and of three tokens, so that a mean over responses differs."""
    give(monkeypatch, ["<end>", "the secret <end>"])
    spy = Spy(monkeypatch, temperature=1.0)
    method = config(data_epochs=1, updates_per_batch=5, distill=0.0, value_coef=0.0, optim={"lr": 1e-2})
    _, _, work = unlearn(tmp_path, method)
    expected = [
        float(
            ppo_loss(
                now, batch["old_per_token_logps"], batch["advantages"], batch["completion_mask"], clip=0.2
            )
        )
        for batch, now in zip(spy.batches, spy.now, strict=True)
    ]
    assert column(work, "loss") == pytest.approx(expected, abs=1e-5)
    assert max(column(work, "clip_fraction")) > 0 and expected[-1] < expected[0] - 0.1


def test_kl_old_is_the_k3_estimate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spy = Spy(monkeypatch, temperature=1.0)
    _, _, work = unlearn(tmp_path, config(data_epochs=1, updates_per_batch=4))
    expected = []
    for batch, now in zip(spy.batches, spy.now, strict=True):
        log_ratio = now - batch["old_per_token_logps"]
        each = (log_ratio.exp() - 1 - log_ratio)[batch["completion_mask"] == 1]
        expected.append(float(each.mean()))
    assert expected[0] == pytest.approx(0, abs=1e-6) and expected[-1] > 1e-3
    assert column(work, "kl_old") == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_update_costs_one_forward_pass_of_the_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passes = []
    compute = RLTrainer._compute_loss

    def counting(trainer: Any, model: Any, inputs: Any) -> torch.Tensor:
        hook = model.model.register_forward_hook(lambda *_: passes.append(1))
        try:
            return compute(trainer, model, inputs)
        finally:
            hook.remove()

    monkeypatch.setattr(RLTrainer, "_compute_loss", counting)
    unlearn(tmp_path, config(data_epochs=1, updates_per_batch=3, distill=0.0))
    assert len(passes) == 3


# --- the log --------------------------------------------------------------------------------------------------

EVERY_UPDATE = ("loss", "kl_old", "distill", "value_loss", "entropy", "clip_fraction", "grad_norm")
EVERY_BATCH = (
    "reward", "saturated_share", "rollout_attribution", "kl_original", "explained_variance", "response_length",
    "empty_share", "unfinished_share",
)  # fmt: skip


def test_log_has_every_number(run: Work) -> None:
    work = run
    assert [row["step"] for row in work.log] == list(range(1, 17))
    for name in EVERY_UPDATE:
        assert len(column(work, name)) == 16, name
    for name in EVERY_BATCH:
        assert [row["step"] for row in work.log if name in row] == [1, 5, 9, 13], name
    for name in (*EVERY_UPDATE, *EVERY_BATCH):
        assert all(math.isfinite(value) for value in column(work, name)), name
    for name in (
        "saturated_share",
        "rollout_attribution",
        "clip_fraction",
        "empty_share",
        "unfinished_share",
    ):
        assert all(0 <= value <= 1 for value in column(work, name)), name
    # Of the first rollouts, five tokens each: four are saturated, all are attributable at their end.
    first = {name: column(work, name)[0] for name in EVERY_BATCH}
    assert first["saturated_share"] == pytest.approx(0.8)
    assert first["rollout_attribution"] == pytest.approx(0.95)
    assert first["response_length"] == pytest.approx(5)
    assert first["explained_variance"] == pytest.approx(0)  # the critic starts at zero
    assert first["empty_share"] == first["unfinished_share"] == 0
    assert column(work, "kl_original")[-1] > 0.01
    assert max(column(work, "clip_fraction")) > 0


def test_log_has_no_column_of_trl_s_own_reward(run: Work) -> None:
    names = {name for row in run.log for name in row}
    assert {name for name in names if "reward" in name} == {"reward"}


def test_empty_responses_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Half of the responses end at once, the others after one word."""
    give(monkeypatch, ["<end>", "the <end>"])
    _, _, work = unlearn(tmp_path, config(data_epochs=1, reward={"empty_penalty": 1.0}))
    assert column(work, "empty_share") == [0.5]
    assert column(work, "response_length") == [1.5]
    # Eighteen tokens read χ(.02); six of them are empty responses and take −1 more.
    assert column(work, "reward")[0] == pytest.approx(-6 / 18 + math.log(0.98) / 1.05, abs=1e-5)


# One response says the secret and ends; the other repeats a word to the limit: 3 + 6 tokens.
GUARDED = ["the secret <end>", "the the the the the the"]


@pytest.mark.parametrize(
    ("key", "weight", "taken"),
    [
        ("length_penalty", 0.5, 0.5),  # the second never ends
        ("repetition_penalty", 0.3, 0.6),  # and closes the same four words again at its last two tokens
        ("empty_penalty", 0.7, 0.0),  # neither is empty
    ],
)
def test_guards_enter_the_reward(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str, weight: float, taken: float
) -> None:
    give(monkeypatch, GUARDED)
    _, _, work = unlearn(tmp_path, config(data_epochs=1, reward={key: weight}))
    attribution = -2 + 7 * math.log(0.98) / 1.05  # χ(.95) is −1 at "secret" and at the end after it
    assert column(work, "reward")[0] == pytest.approx((attribution - taken) / 9, abs=1e-5)


def test_kl_and_fluency_enter_the_reward(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first by the policy's distance from the original, the second by the original's own log-likelihood."""
    give(monkeypatch, GUARDED)
    spy = Spy(monkeypatch, temperature=1.0)
    method = config(
        data_epochs=2, updates_per_batch=2, reward={"kl": 0.5, "fluency": 2.0, "fluency_clip": 3.0}
    )
    _, _, work = unlearn(tmp_path, method)
    batch = spy.batches[0]
    with torch.no_grad():
        logps = response_logps(original()[0], batch).clamp(min=-3)[batch["completion_mask"] == 1]
    base = (-2 + 7 * math.log(0.98) / 1.05) / 9 + 2 * float(logps.mean()) / 3
    kl = column(work, "kl_original")
    assert kl[1] > 1e-3
    expected = [base - 0.5 * value for value in kl]
    assert column(work, "reward") == pytest.approx(expected, abs=1e-5)
