"""PPO on a model of three thousand parameters: what it learns, what it leaves alone, what it logs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from ppo_fixture import (
    FORGET,
    RETAIN,
    SECRET,
    SecretScorer,
    apart,
    column,
    config,
    encoded,
    largest_difference,
    make_critic,
    mean_nll,
    original,
    retain_drift,
    unlearn,
    weights,
    with_lora,
)
from trl import GRPOTrainer

from dareu.errors import ConfigError
from dareu.models import logprobs
from dareu.models.generate import generate
from dareu.models.load import ORIGINAL, POLICY, freeze_original, reference_logits
from dareu.training import rl_trainer as ppo
from dareu.training.common import Work, rollout_batch
from dareu.training.rl_trainer import RolloutSampler

Run = tuple[Any, Work]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Run]:
    """The same run with and without distillation."""
    result = {}
    for weight in (0.0, 2.0):
        model, _, work = unlearn(tmp_path_factory.mktemp("ppo"), config(distill=weight))
        result[weight] = (model, work)
    return result


def _answers(model: Any, prompts: dict[str, str]) -> list[str]:
    tokenizer = original()[1]
    return [g.text for g in generate(model, tokenizer, list(prompts), max_new_tokens=6, batch_size=8)]


# --- what it learns -------------------------------------------------------------------------------------------


def test_reward_rises_and_the_secret_goes(runs: dict[float, Run]) -> None:
    model, work = runs[2.0]
    assert all(SECRET in answer for answer in _answers(original()[0], FORGET))
    reward = column(work, "reward")
    # The first rollouts are "the secret is …": χ(.95) is clipped to −1 at four of their five tokens.
    assert reward[0] == pytest.approx((math.log(1 - 0.02) / 1.05 - 4) / 5, abs=1e-5)
    assert reward[-1] > reward[0] + 0.5
    assert column(work, "rollout_attribution")[-1] < 0.3
    assert not any(SECRET in answer for answer in _answers(model, FORGET))


def test_distillation_holds_the_retain_set(runs: dict[float, Run]) -> None:
    before = mean_nll(original()[0], RETAIN)
    forget = mean_nll(original()[0], FORGET)
    model, _ = runs[2.0]
    assert abs(mean_nll(model, RETAIN) - before) < 0.05
    assert mean_nll(model, FORGET) > forget + 1
    assert _answers(model, RETAIN) == _answers(original()[0], RETAIN)


def test_retain_set_drifts_without_distillation(runs: dict[float, Run]) -> None:
    assert retain_drift(runs[0.0][0]) > 5 * retain_drift(runs[2.0][0])


def test_nothing_is_forgotten_where_nothing_is_attributable(tmp_path: Path) -> None:
    """The change above comes from the reward, and from nothing else in the update.

    A reward of exactly 0, because Adam makes whole steps of the smallest gradients.
    """
    scorer = SecretScorer(original()[1], high=0.0, low=0.0)
    model, _, work = unlearn(tmp_path, config(distill=0.0, reward={"transform": "linear"}), scorer=scorer)
    assert column(work, "reward") == [0.0] * 4
    assert largest_difference(weights(model), weights(original()[0])) == 0


@pytest.mark.parametrize("updates", [1, 3])
def test_a_batch_of_rollouts_is_passed_once(
    updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KL and old log-probabilities share the policy's pass, whether TRL asks for it or leaves it out."""
    passes: list[tuple[bool, bool]] = []
    plain = logprobs.response_logits

    def counted(model: Any, batch: Any) -> Any:
        passes.append((model is reference, torch.is_grad_enabled()))
        return plain(model, batch)

    monkeypatch.setattr(logprobs, "response_logits", counted)  # of `ppo` it is the one of distillation
    reference = copy.deepcopy(original()[0]).requires_grad_(False)
    unlearn(tmp_path, config(data_epochs=2, updates_per_batch=updates), reference=reference)
    assert passes.count((True, False)) == passes.count((False, False)) == 2  # two batches
    assert passes.count((False, True)) == 2 * updates and len(passes) == 4 + 2 * updates


@pytest.mark.parametrize("adapter", [False, True])
def test_rollouts_and_retain_rows_share_a_pass(
    adapter: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One differentiated pass an update, and the run ends where two passes take it."""
    settings: dict[str, Any] = {"data_epochs": 2, "updates_per_batch": 3}
    ends, passes, start = [], [], {}
    for most in (1e9, 0.0):
        monkeypatch.setattr(logprobs, "MOST_PADDED", most)
        policy = with_lora(original()[0]) if adapter else copy.deepcopy(original()[0])
        start = weights(policy)
        count: list[bool] = []
        policy.register_forward_pre_hook(
            lambda *_, into=count: into.append(True) if torch.is_grad_enabled() else None
        )
        model, _, work = unlearn(tmp_path / str(most), config(**settings), policy=policy)
        ends.append((weights(model), column(work, "distill"), column(work, "loss")))
        passes.append(len(count))
    assert passes == [6, 12]
    assert apart(ends[0][0], ends[1][0], start) < 0.01
    differences = [abs(a - b) for a, b in zip(ends[0][1], ends[1][1], strict=True)]
    assert max(differences) < 0.01 * max(ends[0][1])
    # Nothing before the first update: these are the logits of the retain rows.
    assert abs(ends[0][1][0]) < 1e-6
    assert ends[0][2] == pytest.approx(ends[1][2], abs=1e-5)


# --- batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [6, 3])
def test_update_does_not_depend_on_the_micro_batches(tmp_path: Path, micro: int) -> None:
    """One batch of rollouts, three updates on it, cut into 1, 2 or 4 micro-batches; distillation included.

    TRL's `bnpo` and our losses are means over the tokens of a micro-batch, so this holds where micro-batches have
    equally many tokens: here every answer has five.
    """
    settings: dict[str, Any] = {"data_epochs": 1, "updates_per_batch": 3, "retain_batch_size": 4}
    critics = [make_critic(original()[1]) for _ in range(2)]
    # Six rows, four an update: an update that took more would take others.
    rows = encoded(original()[1], RETAIN | {"ask red": "the word is plum", "ask three": "the word is apple"})
    whole, _, work = unlearn(tmp_path / "whole", config(**settings), critic=critics[0], retain_rows=rows)
    method = config(**settings, optim={"micro_batch_size": micro})
    cut, _, other = unlearn(tmp_path / "cut", method, critic=critics[1], retain_rows=rows)
    assert column(work, "completions/min_length") == column(work, "completions/max_length") == [5.0]
    assert apart(weights(whole), weights(cut), weights(original()[0])) < 0.01
    # Where a gradient is rounding alone Adam still takes a whole step: .014 with other releases of the libraries. A
    # gradient of wrong weights between micro-batches (cosine .84) would be apart by √(2 · .16) = .57.
    assert apart(*map(weights, critics), weights(make_critic(original()[1]))) < 0.1
    for name in ("loss", "value_loss", "distill", "kl_old"):
        assert column(work, name) == pytest.approx(column(other, name), abs=1e-4), name


def test_micro_batch_that_does_not_divide_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="12 rollouts .* micro-batches of 5"):
        unlearn(tmp_path, config(optim={"micro_batch_size": 5}))


@pytest.mark.parametrize("micro", [None, 2])
def test_a_batch_in_parts_is_sampled_once(
    micro: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve rollouts, four an update, two updates each: each is met twice, by the old policy of the whole batch."""
    met: list[list[tuple[float, ...]]] = []
    plain = ppo.RLTrainer._compute_loss

    def spy(trainer: Any, model: Any, inputs: dict[str, Any]) -> Any:
        while len(met) <= trainer.state.global_step:
            met.append([])
        together = zip(inputs["completion_ids"].tolist(), inputs["old_per_token_logps"].tolist(), strict=True)
        met[trainer.state.global_step] += [tuple(ids + old) for ids, old in together]
        return plain(trainer, model, inputs)

    monkeypatch.setattr(ppo.RLTrainer, "_compute_loss", spy)
    scorer = SecretScorer(original()[1])
    optim = {"micro_batch_size": micro}
    method = config(data_epochs=2, rollouts_per_update=4, updates_per_batch=2, optim=optim)
    _, outcome, _ = unlearn(tmp_path, method, scorer=scorer)
    assert outcome.updates == len(met) == 2 * 3 * 2
    assert [len(ids) for ids, _ in scorer.seen] == [12, 12]
    assert [len(rows) for rows in met] == [4] * 12
    for start in (0, 6):
        first, second = met[start : start + 3], met[start + 3 : start + 6]
        assert first == second
        assert len({row for rows in first for row in rows}) > 4  # three parts, not one of them three times


@pytest.mark.parametrize(
    ("prompts", "generations", "per_update", "expected"),
    [
        (40, 1, None, (40, 1, 40)),
        (40, 1, 20, (40, 2, 20)),
        (100, 1, 20, (40, 2, 20)),
        (20, 1, 20, (20, 1, 20)),
        (33, 1, 20, (34, 2, 17)),  # two equal parts, one prompt asked twice
        (7, 1, 20, (7, 1, 7)),
        (40, 2, 20, (40, 4, 20)),
        (3, 8, 4, (3, 6, 4)),  # the rollouts of a prompt need not stay together
    ],
)
def test_batches_are_cut_into_equal_parts(
    prompts: int, generations: int, per_update: int | None, expected: tuple[int, int, int]
) -> None:
    method = config(prompts_per_batch=40, num_generations=generations, rollouts_per_update=per_update)
    assert rollout_batch(method, prompts) == expected


def test_a_batch_may_be_a_whole_epoch() -> None:
    method = config(prompts_per_batch=None, num_generations=1, rollouts_per_update=20)
    assert rollout_batch(method, 100) == (100, 5, 20)  # sampled at once, five updates of their own


def test_groups_of_one_are_an_error_for_vllm(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two"):
        unlearn(tmp_path, config(use_vllm=True, num_generations=1))


def test_sampler_repeats_chunks_and_drops_no_prompt() -> None:
    sampler = RolloutSampler(size=5, prompts=2, generations=3, repeats=4, epochs=3, seed=7)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 8 * 2 * 3 * 4  # eight chunks of two prompts, the last filled up
    chunks = [indices[i : i + 6] for i in range(0, len(indices), 6)]
    for start in range(0, len(chunks), 4):
        assert all(chunk == chunks[start] for chunk in chunks[start : start + 4])
        assert chunks[start][0:3] == [chunks[start][0]] * 3
    walked = [i for chunk in chunks[::4] for i in chunk[::3]]
    assert sorted(walked[:5]) == sorted(walked[5:10]) == sorted({*walked[10:15]}) == list(range(5))
    assert list(RolloutSampler(5, 2, 3, 4, 3, seed=8)) != indices


@pytest.mark.parametrize("generations", [1, 3])
def test_every_prompt_is_scored_with_its_owner(tmp_path: Path, generations: int) -> None:
    """With one generation a prompt, TRL's groups (two at least) join different prompts, which must not matter."""
    scorer = SecretScorer(original()[1])
    owners = ["first", "second", "third"]
    prompts_per_batch = 2 if generations == 1 else 3
    method = config(num_generations=generations, prompts_per_batch=prompts_per_batch, distill=0.0)
    _, outcome, work = unlearn(tmp_path, method, owners=owners, scorer=scorer)
    assert outcome.updates == math.ceil(3 * 4 / prompts_per_batch) * 4
    met = [owner for _, names in scorer.seen for owner in names]
    assert all(len(names) == prompts_per_batch * generations for _, names in scorer.seen)
    assert {owner: met.count(owner) for owner in owners} == dict.fromkeys(owners, 4 * generations)
    assert column(work, "reward")[-1] > column(work, "reward")[0]


def test_retain_rows_are_walked_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each update distils on the next rows of the seeded walk, so all of them are met equally often."""
    import dareu.training.rl_trainer as ppo

    met: list[str] = []
    to_batch = ppo.to_batch

    def spy(rows: Any, *args: Any) -> Any:
        met.extend(original()[1].decode(row.prompt_ids) for row in rows)
        return to_batch(rows, *args)

    monkeypatch.setattr(ppo, "to_batch", spy)
    method = config(data_epochs=2, updates_per_batch=2, retain_batch_size=2)
    unlearn(tmp_path, method, retain_rows=encoded(original()[1], RETAIN))
    assert len(met) == 4 * 2
    assert {prompt: met.count(prompt) for prompt in set(met)} == dict.fromkeys(set(met), 2)
    assert len(set(met)) == len(RETAIN)


# --- adapters -------------------------------------------------------------------------------------------------


@pytest.fixture
def merge_notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """For each batch: which adapters were merged while it was sampled, and what was sampled."""
    notes: list[Any] = []
    single = GRPOTrainer._generate_single_turn

    def spy(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        layers = [m for m in trainer.model.modules() if isinstance(m, BaseTunerLayer)]
        merged = {tuple(layer.merged_adapters) for layer in layers}
        result = single(trainer, *args, **kwargs)
        notes.append((merged, result[0]))
        return result

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", spy)
    yield notes


def test_adapter_is_merged_for_rollouts_and_alone_is_trained(merge_notes: list[Any], tmp_path: Path) -> None:
    policy = with_lora(original()[0])
    reference = freeze_original(policy)
    assert reference is policy  # a second adapter, no second copy of the base
    before = weights(policy)
    method = config(data_epochs=4, optim={"lr": 1e-2})
    model, _, work = unlearn(tmp_path, method, policy=policy, reference=reference)
    after = weights(model)
    assert before.keys() == after.keys()
    for name in before:
        moved = not torch.equal(before[name], after[name])
        assert moved == (f".{POLICY}." in name), name
    assert [merged for merged, _ in merge_notes] == [{(POLICY,)}] * 4
    assert not any(m.merged_adapters for m in model.modules() if isinstance(m, BaseTunerLayer))
    assert column(work, "reward")[-1] > column(work, "reward")[0] + 0.3
    # The frozen adapter still is the original, and the policy has left it.
    full, attention = torch.tensor([[3, 4, 7, 10]]), torch.ones(1, 4, dtype=torch.long)
    frozen = reference_logits(model, model, full, attention)
    with torch.no_grad():
        assert torch.equal(frozen, with_lora(original()[0])(input_ids=full, attention_mask=attention).logits)
        assert not torch.allclose(frozen, model(input_ids=full, attention_mask=attention).logits, atol=1e-2)
    assert {p.requires_grad for n, p in model.named_parameters() if f".{ORIGINAL}." in n} == {False}


def test_merged_and_unmerged_rollouts_are_the_same(merge_notes: list[Any], tmp_path: Path) -> None:
    for merge in (True, False):
        method = config(data_epochs=1, merge_rollouts=merge)
        unlearn(tmp_path / str(merge), method, policy=with_lora(original()[0]))
    (merged, one), (unmerged, other) = merge_notes
    assert (merged, unmerged) == ({(POLICY,)}, {()})
    assert one == other
