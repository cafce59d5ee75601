"""PPO that is cut off and taken up again, that stops by its rules, that meets a loss which is not finite."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import (
    Killed,
    Monitor,
    SecretScorer,
    column,
    config,
    killed_after,
    largest_difference,
    make_critic,
    original,
    unlearn,
    weights,
    with_lora,
    without_times,
)
from safetensors.torch import load_file
from torch import Tensor

from dareu.errors import TrainingError
from dareu.training.common import last_checkpoint


def policy_of(kind: str) -> Any:
    return copy.deepcopy(original()[0]) if kind == "full" else with_lora(original()[0], dropout=0.1)


# --- cut off and taken up again -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "parts"), [("full", 1), ("lora", 1), ("full", 2)])
def test_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path, kind: str, parts: int) -> None:
    method = config(  # a checkpoint a batch: every four updates
        optim={"save_every": 3, "scheduler": "linear"},
        rollouts_per_update=12 // parts,
        updates_per_batch=4 // parts,
    )
    critics = [make_critic(original()[1]) for _ in range(3)]
    whole, _, work = unlearn(tmp_path / "whole", method, policy=policy_of(kind), critic=critics[0])
    with pytest.raises(Killed):
        unlearn(
            tmp_path / "cut",
            method,
            policy=policy_of(kind),
            critic=critics[1],
            work=killed_after(tmp_path / "cut", 2),
        )
    torch.manual_seed(12345)  # another process has another random state
    scorer = SecretScorer(original()[1])
    model, outcome, resumed = unlearn(
        tmp_path / "cut", method, policy=policy_of(kind), critic=critics[2], scorer=scorer
    )
    assert len(scorer.seen) == 2  # the batches before the checkpoint are not sampled again
    assert outcome.updates == 16
    assert largest_difference(weights(whole), weights(model)) == 0
    assert largest_difference(weights(critics[0]), weights(critics[2])) == 0
    assert min(column(work, "grad_norm")) > 1e-3  # it did learn all the while
    assert without_times(work) == without_times(resumed)


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    method = config(optim={"save_every": 4})
    whole, _, _ = unlearn(tmp_path / "whole", method)
    with pytest.raises(Killed):
        unlearn(tmp_path / "cut", method, work=killed_after(tmp_path / "cut", 2))
    newest = last_checkpoint(tmp_path / "cut" / "checkpoints")
    assert newest is not None and newest.name == "checkpoint-8"
    (newest / "complete").unlink()
    (newest / "model.safetensors").write_bytes(b"half")
    model, _, _ = unlearn(tmp_path / "cut", method)
    assert largest_difference(weights(whole), weights(model)) == 0


def test_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    method = config(data_epochs=2)
    model, _, work = unlearn(tmp_path, method)
    scorer = SecretScorer(original()[1])
    again, outcome, second = unlearn(tmp_path, method, scorer=scorer)
    assert outcome.updates == 8 and not scorer.seen
    assert largest_difference(weights(model), weights(again)) == 0
    assert without_times(work) == without_times(second)


# --- stopping rules -------------------------------------------------------------------------------------------


def test_stops_once_the_attribution_is_low(tmp_path: Path) -> None:
    monitor = Monitor({"attribution": 0.5}, {"attribution": 0.051}, {"attribution": 0.049})
    model, outcome, work = unlearn(tmp_path / "a", config(stop={"attribution": 0.05}), monitor=monitor)
    assert outcome.updates == 8
    assert outcome.stopped is not None and "attribution" in outcome.stopped and "0.049" in outcome.stopped
    eight, _, _ = unlearn(tmp_path / "b", config(data_epochs=2))
    assert largest_difference(weights(model), weights(eight)) == 0  # the weights stay as they are
    # What led to the stop is in the log, too.
    assert column(work, "stop_attribution") == pytest.approx([0.5, 0.051, 0.049])
    assert work.log[-1]["step"] == 8 and len(column(work, "reward")) == 3


def test_patience_counts_batches_in_a_row(tmp_path: Path) -> None:
    low, high = {"attribution": 0.01}, {"attribution": 0.9}
    monitor = Monitor(low, high, low, low)
    _, outcome, _ = unlearn(tmp_path, config(stop={"attribution": 0.05, "patience": 2}), monitor=monitor)
    assert outcome.updates == 12 and outcome.stopped is not None


@pytest.mark.parametrize(("limit", "updates"), [(0.05, 4), (1e6, 16)])
def test_stops_once_the_kl_is_high(tmp_path: Path, limit: float, updates: int) -> None:
    _, outcome, work = unlearn(tmp_path, config(stop={"kl": limit}))
    assert outcome.updates == updates
    assert (outcome.stopped is not None) == (updates == 4)
    assert column(work, "kl_original")[1] > 0.05
    if outcome.stopped:
        assert outcome.stopped.startswith("KL to the original")


@pytest.mark.parametrize("name", ["empty", "repetitive", "unfinished"])
def test_broken_text_stops_and_brings_good_weights_back(tmp_path: Path, name: str) -> None:
    method = config(stop={"unhealthy": 0.25})
    monitor = Monitor({name: 0.1}, {name: 0.34}, {name: 0.36})  # more than .1 + .25 at the third look
    model, outcome, _ = unlearn(tmp_path / "a", method, monitor=monitor)
    assert outcome.updates == 8
    assert outcome.stopped is not None and "36%" in outcome.stopped
    four, _, _ = unlearn(tmp_path / "b", config(data_epochs=1))
    assert largest_difference(weights(model), weights(four)) == 0  # those of the second look


def test_good_weights_of_an_adapter_come_back(tmp_path: Path) -> None:
    method = config(stop={"unhealthy": 0.25})
    model, outcome, _ = unlearn(
        tmp_path / "a", method, policy=policy_of("lora"), monitor=Monitor({}, {}, {"empty": 1.0})
    )
    four, _, _ = unlearn(tmp_path / "b", config(data_epochs=1), policy=policy_of("lora"))
    assert outcome.updates == 8
    assert largest_difference(weights(model), weights(four)) == 0
    kept = load_file(tmp_path / "a" / "good.safetensors")
    assert kept and all(".default." in name for name in kept)  # the adapter alone


def test_text_of_nobody_is_broken_text(tmp_path: Path) -> None:
    class Nobody(SecretScorer):
        def __call__(
            self, ids: Tensor, mask: Tensor, owners: Sequence[str], queries: Sequence[str]
        ) -> tuple[Tensor, Tensor]:
            scores, nobody = super().__call__(ids, mask, owners, queries)
            nobody[: len(ids) // 2 * (len(self.seen) > 1)] = (
                0.9  # half of the rollouts from the second batch on
            )
            return scores, nobody * mask

    _, outcome, work = unlearn(tmp_path, config(stop={"unhealthy": 0.25}), scorer=Nobody(original()[1]))
    assert outcome.updates == 4
    assert column(work, "stop_nobody") == [0.0, 0.5]


def test_strikes_are_kept_in_the_checkpoint(tmp_path: Path) -> None:
    low, high = {"attribution": 0.01}, {"attribution": 0.9}
    method = config(optim={"save_every": 4}, stop={"attribution": 0.05, "patience": 2})
    with pytest.raises(Killed):
        unlearn(tmp_path, method, monitor=Monitor(high, low), work=killed_after(tmp_path, 2))
    _, outcome, _ = unlearn(tmp_path, method, monitor=Monitor(low, low))
    assert outcome.updates == 8  # the second in a row, though the first was seen before the interruption


def test_first_look_and_good_weights_are_kept_in_the_checkpoint(tmp_path: Path) -> None:
    method = config(optim={"save_every": 4}, stop={"unhealthy": 0.25})
    with pytest.raises(Killed):
        unlearn(tmp_path / "a", method, monitor=Monitor({}, {}), work=killed_after(tmp_path / "a", 2))
    model, outcome, _ = unlearn(tmp_path / "a", method, monitor=Monitor({"empty": 0.3}, {}))
    assert outcome.updates == 8  # .3 is too much beside 0, which the first look of all said
    four, _, _ = unlearn(tmp_path / "b", config(data_epochs=1))
    assert largest_difference(weights(model), weights(four)) == 0


# --- losses that are not finite -------------------------------------------------------------------------------


def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Breaking(SecretScorer):
        def __call__(
            self, ids: Tensor, mask: Tensor, owners: Sequence[str], queries: Sequence[str]
        ) -> tuple[Tensor, Tensor]:
            scores, nobody = super().__call__(ids, mask, owners, queries)
            return scores * (float("nan") if len(self.seen) == 3 else 1), nobody

    method = config(optim={"save_every": 4})
    with pytest.raises(TrainingError, match="not finite at step 8"):
        unlearn(tmp_path / "a", method, scorer=Breaking(original()[1]))
    newest = last_checkpoint(tmp_path / "a" / "checkpoints")
    assert newest is not None and newest.name == "checkpoint-8"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(newest / "model.safetensors").values())
    # From there the run goes on as if nothing had happened, once the cause is gone.
    model, _, _ = unlearn(tmp_path / "a", method)
    whole, _, _ = unlearn(tmp_path / "b", method)
    assert largest_difference(weights(model), weights(whole)) == 0
