"""The trainers of RMU, PDU, SCRUB and task vectors: what they move, their state, runs that are cut off."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_fixture import train
from ppo_fixture import (
    FORGET,
    RETAIN,
    Killed,
    column,
    encoded,
    killed_after,
    largest_difference,
    mean_nll,
    original,
    weights,
    with_lora,
)
from procedure_fixture import PDU, RMU, RUNS, SCRUB, deep, run

from dareu.config import LossOptim, VectorConfig
from dareu.errors import ConfigError, TrainingError
from dareu.methods.pdu import dual_ascent
from dareu.methods.rmu import random_direction
from dareu.methods.task_vector import negate_by_training
from dareu.models.layers import activations, cut_after, find_blocks, parameters_below
from dareu.models.load import freeze_original
from dareu.models.logprobs import to_batch
from dareu.training.common import Work

# --- RMU ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [False, True])
def test_rmu_steers_forget_activations_and_trains_what_is_chosen(tmp_path: Path, adapter: bool) -> None:
    policy = with_lora(deep()) if adapter else copy.deepcopy(deep())
    before = weights(policy)
    model, work = run(tmp_path, "rmu", policy, optim={"lr": 3e-2, "epochs": 20})
    forget, retain = column(work, "forget_loss"), column(work, "retain_loss")
    assert forget[-1] < forget[0] - 0.02 and retain[0] == pytest.approx(0, abs=1e-10) and retain[-1] > 1e-6
    changed = {
        name
        for name, weight in weights(model).items()
        if name in before and not torch.equal(weight, before[name])
    }
    if adapter:
        assert {n.split("layers.")[1] for n in changed} == {
            f"1.mlp.down_proj.lora_{m}.default.weight" for m in "AB"
        }
    else:
        assert changed == {"model.layers.1.mlp.down_proj.weight"}
    # the distance of the first step by hand: untrained activations at the answers' tokens, all dimensions
    tokenizer = original()[1]
    batch = to_batch(encoded(tokenizer, FORGET), tokenizer.pad_token_id, "cpu")
    fresh = with_lora(deep()) if adapter else deep()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    hidden = fresh(**inputs, output_hidden_states=True).hidden_states[2]
    wanted = ((hidden - 3.0 * random_direction(16, 1))[batch["labels"] != -100] ** 2).mean()
    assert forget[0] == pytest.approx(wanted.item(), rel=1e-5)


def test_a_pass_ends_at_the_block_that_is_read() -> None:
    model = copy.deepcopy(deep())
    tokenizer = original()[1]
    batch = to_batch(encoded(tokenizer, FORGET), tokenizer.pad_token_id, "cpu")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    wanted = model(**inputs, output_hidden_states=True).hidden_states[2]
    calls: list[int] = []
    for index, block in enumerate(find_blocks(model)[1]):
        block.register_forward_hook(lambda *_, i=index: calls.append(i))
    found = activations(model, model, 1, **inputs)
    assert calls == [0, 1] and torch.equal(found, wanted)
    assert len(find_blocks(model)[1]) == 3 and model(**inputs).logits.shape[-1] == len(tokenizer)
    with pytest.raises(ZeroDivisionError), cut_after(model, 0):
        1 / 0  # noqa: B018
    assert len(model.model.layers) == 3


def test_parameters_below() -> None:
    names = parameters_below(deep(), 1, 2, ["mlp.down_proj", "self_attn.[qk]_proj"])
    modules = ("mlp.down_proj", "self_attn.q_proj", "self_attn.k_proj")
    assert names == [f"model.layers.{i}.{m}.weight" for m in modules for i in (1, 2)]
    assert len(parameters_below(deep(), 0, 0, ["*"])) == sum(1 for _ in deep().model.layers[0].parameters())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layer": 3}, "no layer 3 .*the layers 0 to 2"),
        ({"layer": -4}, "no layer -4 .*the layers 0 to 2"),
        ({"modules": ["mlp.donw_proj"]}, "matches 'mlp.donw_proj'.*mlp.down_proj"),
        ({"layer": 1.5}, "method.params.layer"),
        ({"coefficient": 0}, "method.params.coefficient. must be a number above 0"),
        ({"modules": []}, "method.params.modules"),
    ],
)
def test_rmu_of_what_the_model_does_not_have(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        run(tmp_path, "rmu", params=RMU | changes)


def test_rmu_of_modules_without_an_adapter(tmp_path: Path) -> None:
    from dareu.config import LoraConfig
    from dareu.models.load import add_lora

    policy = add_lora(copy.deepcopy(deep()), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ConfigError, match="lora.target_modules"):
        run(tmp_path, "rmu", policy)


# --- PDU ----------------------------------------------------------------------------------------------------------


def test_pdu_flattens_and_its_dual_follows_the_retain_loss(tmp_path: Path) -> None:
    _, work = run(tmp_path, "pdu", retain_weight=3.0, optim={"lr": 1e-2, "epochs": 12})
    forget, retain, dual = (column(work, name) for name in ("forget_loss", "retain_loss", "dual"))
    assert forget[-1] < 0.7 * forget[0]
    # what a step logs is the α of the next one
    alpha = 3.0
    for loss, logged in zip(retain, dual, strict=True):
        alpha = dual_ascent(alpha, loss, 0.2, 2.0)
        assert logged == pytest.approx(alpha, abs=1e-5)
    assert len(set(dual)) == 12 and max(retain) > 0.2  # the bound was broken, and α moved
    used = [3.0, *dual[:-1]]
    for row, weight in zip(work.log, used, strict=True):
        assert row["loss"] == pytest.approx(row["forget_loss"] + weight * row["retain_loss"], rel=1e-5)


def test_pdu_waits_for_its_warm_up_and_averages_micro_batches(tmp_path: Path) -> None:
    rows = encoded(original()[1], FORGET | {"ask blue": "the secret is fig"})
    _, work = run(
        tmp_path, "pdu", rows=rows, retain_weight=3.0, params=PDU | {"warmup_epochs": 2},
        optim={"batch_size": 2, "micro_batch_size": 1, "epochs": 3}, retain_batch_size=2,
    )  # fmt: skip
    dual, retain = column(work, "dual"), column(work, "retain_loss")
    assert dual[:4] == [3.0] * 4  # two steps an epoch
    assert dual[4] == pytest.approx(dual_ascent(3.0, retain[4], 0.2, 2.0), abs=1e-5) and dual[4] != 3.0


# --- SCRUB --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [False, True])
def test_scrub_alternates_and_ends_on_retain_rows(tmp_path: Path, adapter: bool) -> None:
    # three forget rows in one batch: 1 max step an epoch; four retain rows by two: 2 min steps
    model, work = run(tmp_path, "scrub", adapter=adapter, optim={"lr": 1e-2, "epochs": 4})
    assert ["forget_loss" in row for row in work.log] == [*[True, False, False] * 2, *[False] * 4]
    ups = column(work, "forget_loss")
    assert ups[0] == pytest.approx(0, abs=1e-4 if adapter else 1e-6)  # dropout
    assert ups[1] < ups[0] - 1e-3
    for row in work.log:
        if "forget_loss" not in row:
            assert row["loss"] == pytest.approx(row["retain_loss"] + 0.5 * row["retain_kl"], abs=1e-6)
    assert mean_nll(model, RETAIN) < mean_nll(original()[0], RETAIN) + 0.2


def test_scrub_logs_means_of_each_kind_of_step(tmp_path: Path) -> None:
    _, each = run(tmp_path / "a", "scrub")
    _, all_ = run(tmp_path / "b", "scrub", work=Work(tmp_path / "b", log_every=10))
    assert len(all_.log) == 1
    for name in ("forget_loss", "retain_loss", "retain_kl"):
        assert all_.log[0][name] == pytest.approx(sum(column(each, name)) / len(column(each, name)), abs=1e-6)


def test_scrub_without_kl_makes_no_reference_pass_on_retain_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = copy.deepcopy(original()[0])
    reference, calls = freeze_original(policy), []
    reference.register_forward_hook(lambda *_: calls.append(1))
    given = RUNS["scrub"] | {"params": SCRUB | {"alpha": 0.0}}
    _, work = train(tmp_path, "scrub", policy=policy, reference=reference, **given)
    assert len(calls) == 2 == len(column(work, "forget_loss")) and not column(work, "retain_kl")


# --- task vectors -------------------------------------------------------------------------------------------------


def vector(
    folder: Path, policy: Any, scale: float = 0.5, work: Work | None = None, **optim: Any
) -> tuple[float, Work]:
    work = work or Work(folder)
    given = {"lr": 1e-2, "epochs": 4, "batch_size": 3, "scheduler": "constant", "save_every": 1000} | optim
    config = VectorConfig(name="task_vector", optim=LossOptim.model_validate(given))
    config = config.model_copy(update={"scale": scale})  # beyond the range that a command allows, too
    rows = encoded(original()[1], FORGET)
    return negate_by_training(policy, original()[1], config=config, rows=rows, seed=1, work=work), work


def test_task_vector_is_subtracted(tmp_path: Path) -> None:
    start = weights(original()[0])
    tuned, away, back = (copy.deepcopy(original()[0]) for _ in range(3))
    length, _ = vector(tmp_path / "a", back, scale=0.0)
    assert largest_difference(weights(back), start) == 0  # scale 0 is the original
    again, work = vector(tmp_path / "b", away, scale=2.0)
    assert length == again > 0
    # the log is that of fine-tuning on the forget set
    plain, _ = train(
        tmp_path / "c", "finetune", policy=tuned, rows=encoded(original()[1], FORGET), retain_rows=(),
        optim={"lr": 1e-2, "epochs": 4},
    )  # fmt: skip
    for name, weight in weights(away).items():
        torch.testing.assert_close(weight, start[name] - 2.0 * (weights(plain)[name] - start[name]))
    moved = math.sqrt(sum(float(((w - start[n]) ** 2).sum()) for n, w in weights(plain).items()))
    assert length == pytest.approx(moved, rel=1e-5)
    assert column(work, "forget_loss")[-1] < column(work, "forget_loss")[0]
    assert mean_nll(away, FORGET) > mean_nll(original()[0], FORGET) > mean_nll(plain, FORGET)


def test_of_an_adapter_the_negation_is_exact(tmp_path: Path) -> None:
    """The weights that B·A stands for go exactly as far the other way, since A stays where it was."""
    start = with_lora(original()[0])
    away, tuned = with_lora(original()[0]), with_lora(original()[0])
    vector(tmp_path / "a", away, scale=1.0)
    for name, p in tuned.named_parameters():
        p.requires_grad_("lora_B" in name)
    train(tmp_path / "b", "finetune", policy=tuned, rows=encoded(original()[1], FORGET), retain_rows=(),
          optim={"lr": 1e-2, "epochs": 4})  # fmt: skip
    merged = [
        {n: p.detach() for n, p in m.merge_and_unload().named_parameters()} for m in (start, away, tuned)
    ]
    differs = 0
    for name in merged[0]:
        one, other = merged[1][name] - merged[0][name], merged[2][name] - merged[0][name]
        torch.testing.assert_close(one, -other, atol=1e-6, rtol=1e-4)
        differs += int(one.abs().max() > 1e-4)
    assert differs > 3


def test_a_task_vector_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="weights are not finite"):
        vector(tmp_path, copy.deepcopy(original()[0]), scale=1e39)


# --- cut off and taken up again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("name", ["rmu", "pdu", "scrub", "task_vector"])
def test_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path, name: str, adapter: bool) -> None:
    def go(folder: str, work: Work | None = None) -> tuple[Any, Work]:
        work = work or Work(tmp_path / folder)
        optim = {"lr": 1e-2, "epochs": 3, "batch_size": 2, "micro_batch_size": 1, "save_every": 2}
        if name != "task_vector":
            return run(tmp_path / folder, name, adapter=adapter, work=work, optim=optim)
        policy = with_lora(original()[0], dropout=0.1) if adapter else copy.deepcopy(original()[0])
        return policy, vector(tmp_path / folder, policy, work=work, **optim)[1]

    whole, work = go("whole")
    with pytest.raises(Killed):
        go("cut", killed_after(tmp_path / "cut", 2))
    torch.manual_seed(12345)  # another process has another random state
    model, resumed = go("cut")
    assert largest_difference(weights(whole), weights(model)) == 0
    assert work.log == resumed.log and len(work.log) >= 6
    if name == "pdu":
        assert len(set(column(work, "dual"))) == len(work.log)  # there was something to be lost
