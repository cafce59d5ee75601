"""Requests one after another, in this process: where each round starts, what it reads, what is kept and reused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_fixture import (
    LOSS,
    PPO,
    SMALL,
    TRAINING,
    figures,
    folk,
    own_figures,
    results,
    tiny_hub_model,
    train,
    write_lines,
)
from unlearner_fixture import NPO as NPO_SETTINGS
from unlearner_fixture import ROWS, TINY

from dareu import Unlearner
from dareu.cli.commands import main
from dareu.config.compose import compose
from dareu.errors import ConfigError, TrainingError
from dareu.methods import monitors
from dareu.methods.loss_method import LossMethod
from dareu.models.load import freeze_original, load_model, reference_logits
from dareu.rewards import attribution
from dareu.training import loss_trainer
from dareu.workflow.console import Console
from dareu.workflow.experiment import Run
from dareu.workflow.sequential import unlearn_in_turn

BASE = [o for o in SMALL if not o.startswith("forget.")]
NPO = ["method=npo", "method.optim.lr=1e-3", *LOSS]
COMPARISONS = ("tug_of_war", "tug_of_war_without_test", "retrain_similarity", "forget_quality")


def plan(store: Path, *overrides: str) -> Run:
    return Run.plan(compose([*BASE, f"cache_dir={store}", *overrides]), console=Console(silent=True))


def count(store: Path) -> dict[str, int]:
    return {p.name: len(list(p.iterdir())) for p in store.iterdir() if not p.name.startswith(".")}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of its own, since tests count what comes into it."""
    return tmp_path_factory.mktemp("rounds-store")


@pytest.fixture(scope="module")
def two(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with two rounds."""
    folder = tmp_path_factory.mktemp("rounds") / "two"
    train(store, folder, *NPO, "rounds.count=2", base=BASE)
    return folder


# --- keys ------------------------------------------------------------------------------------------------


def test_keys_chain_and_cover_what_went_before(store: Path) -> None:
    three = plan(store, *NPO, "rounds.count=3").requests
    keys = [one.unlearned.key() for one in three]
    assert len(set(keys)) == 3
    two = plan(store, *NPO, "rounds.count=2")
    assert [one.unlearned.key() for one in two.requests] == keys[:2]
    assert [one.unlearned.start.key() for one in three[1:]] == keys[:2]
    first = three[0].cumulative.original.key()
    assert three[0].unlearned.start.key() == first
    assert {one.cumulative.original.key() for one in three} == {first}
    assert len({one.unlearned.attributor.key() for one in three}) == 1
    assert three[2].unlearned.attributor.key() == two.stages.attributor.key()
    assert len({one.cumulative.retrained.key() for one in three}) == 3

    a, b, c = (one.owners[0] for one in three)
    plain = plan(store, *NPO, f'forget.owners=["{a}"]')
    assert plain.model.key() == keys[0]  # the first round is nothing but a request of its own
    turned = plan(store, *NPO, f'rounds=[["{b}"],["{a}"],["{c}"]]').requests
    assert not {one.unlearned.key() for one in turned} & set(keys)  # the same owners gone, by another way
    assert turned[1].cumulative.retrained.key() == three[1].cumulative.retrained.key()
    assert plan(store, *NPO, "rounds.count=3", "method.optim.lr=2e-3").model.key() != keys[2]


def test_a_run_without_rounds_has_the_key_that_it_had(store: Path) -> None:
    plain = plan(store, *NPO, "forget.count=1")
    assert plain.requests == [] and plain.model is plain.stages.unlearned
    assert plain.stages.context.forgotten == plain.stages.context.split.forget_owners


# --- what a round starts from and reads ------------------------------------------------------------------


def test_a_round_starts_from_the_last_one_and_reads_what_is_left(
    tmp_path: Path, store: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of each set are counted (4 owners × 4 pairs), and policy and reference compared with the last model."""
    seen: list[dict[str, Any]] = []
    real = loss_trainer.train_with_loss

    def spy(policy: Any, tokenizer: Any, **given: Any) -> Any:
        if given.get("reference") is not None:
            start = {k: v.clone() for k, v in policy.state_dict().items()}
            held = {k: v.clone() for k, v in given["reference"].state_dict().items()}
            seen.append({"n": (len(given["rows"]), len(given["retain_rows"])), "start": start, "held": held})
        return real(policy, tokenizer, **given)

    monkeypatch.setattr(loss_trainer, "train_with_loss", spy)
    run = plan(store, *NPO, "method.optim.lr=3e-3", "rounds.count=3")
    unlearn_in_turn(run.stages, run.requests, evaluate=False)
    assert [one["n"] for one in seen] == [(4, 12), (4, 8), (4, 4)]
    before = [run.stages.original.get().model, *(one.unlearned.get().model for one in run.requests[:2])]
    for one, folder in zip(seen, before, strict=True):
        weights = load_model(folder)[0].state_dict()
        for name, tensor in weights.items():
            assert torch.equal(one["start"][name], tensor) and torch.equal(one["held"][name], tensor)
    assert any(not torch.equal(seen[0]["start"][k], seen[1]["start"][k]) for k in seen[0]["start"])


def test_the_reward_counts_everything_forgotten_so_far(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[tuple[str, ...]] = []
    watched: list[tuple[str, ...]] = []

    class Scorer(attribution.AttributionScorer):
        def __init__(self, attributor: Any, tokenizer: Any, forget_owners: Any, *rest: Any) -> None:
            scored.append(tuple(forget_owners))
            super().__init__(attributor, tokenizer, forget_owners, *rest)

    class Monitor(monitors.StoppingMonitor):
        def __init__(self, attributor: Any, forget_owners: Any, *rest: Any) -> None:
            watched.append(tuple(forget_owners))
            super().__init__(attributor, forget_owners, *rest)

    monkeypatch.setattr(attribution, "AttributionScorer", Scorer)
    monkeypatch.setattr("dareu.methods.reinforcement.StoppingMonitor", Monitor)
    run = plan(store, *PPO, "method.data_epochs=1", "rounds.count=2")
    owners = run.stages.context.corpus.owners
    unlearn_in_turn(run.stages, run.requests, evaluate=False)
    assert scored == watched == [(owners[-1],), (owners[-2], owners[-1])]
    assert [one.owners for one in run.requests] == [(owners[-1],), (owners[-2],)]
    assert [one.unlearned.get().extra["steps"] for one in run.requests] == [2, 2]


def test_an_adapter_of_the_last_round_is_policy_and_reference_of_the_next(
    tmp_path: Path, store: Path
) -> None:
    """LoRA, by PPO: round 2 trains the adapter that round 1 saved, beside a frozen twin of it."""
    hub = tiny_hub_model(tmp_path / "hub", template=True)
    data = write_lines(tmp_path / "mine.jsonl", folk(4))
    columns = "data.columns={prompt:question,response:answer,owner:person}"
    lora = [
        f"model.path={hub}",
        "model.max_length=64",
        "model.lora.r=2",
        "finetune.steps=6",
        "finetune.lr=0.01",
    ]
    base = ["model=hf", *lora, *TRAINING[3:], "data=local", f"data.path={data}", columns]
    train(store, tmp_path / "run", *PPO, "method.optim.lr=0.01", "rounds=[[Bo],[Di]]", base=base)
    again = compose([*base, f"cache_dir={store}", *PPO, "method.optim.lr=0.01", "rounds=[[Bo],[Di]]"])
    one, other = (r.unlearned.get().model for r in Run.plan(again).requests)
    assert (one / "adapter_config.json").is_file() and (other / "adapter_config.json").is_file()
    ids = torch.arange(4, 16).view(2, 6)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        plain, after = (load_model(f)[0](input_ids=ids, attention_mask=mask).logits for f in (one, other))
        policy = load_model(one, trainable=True)[0]
        held = reference_logits(policy, freeze_original(policy), ids, mask)
    assert torch.allclose(held, plain, atol=1e-6) and not torch.allclose(after, plain, atol=1e-3)
    assert json.loads((other / "adapter_config.json").read_text())["base_model_name_or_path"] == str(hub)


# --- figures, reuse, going on ----------------------------------------------------------------------------


def test_each_round_is_judged_over_everything_forgotten_so_far(two: Path, store: Path) -> None:
    found = results(two)
    first, second = found["rounds"]
    owners = [o for one in (first, second) for o in one["owners"]]
    assert [one["round"] for one in found["rounds"]] == [1, 2] and len(set(owners)) == 2
    assert [(one["n_forget"], one["n_retain"]) for one in found["rounds"]] == [(4, 12), (8, 8)]
    assert sorted(second["forgotten"]) == sorted(owners) == sorted(found["data"]["forget_owners"])
    # The last round's figures stand at the usual places.
    for name in ("original", "retrained", "unlearned"):
        for key, value in found["models"][name].items():
            assert second["models"][name][key] == value
    for key in COMPARISONS:
        assert second[key] == found[key] and first[key] is not None
    assert found["seconds"]["unlearn"] == pytest.approx(sum(o["seconds"]["unlearn"] for o in found["rounds"]))
    # Apart: this round's owners, and those before.
    records = rows(two / "samples" / "unlearned.jsonl")
    assert records == rows(two / "rounds" / "2" / "samples" / "unlearned.jsonl")
    means = [
        sum(r["rouge_l"] for r in records if r["owner"] == o and r["set"] == "forget") / 4 for o in owners
    ]
    unlearned = second["models"]["unlearned"]
    assert [p["rouge_l"] for p in unlearned["forget_by_round"]] == pytest.approx(means)
    assert unlearned["forget_earlier"]["rouge_l"] == pytest.approx(means[0])
    assert unlearned["forget_this_round"]["rouge_l"] == pytest.approx(means[1])
    assert unlearned["forget"]["rouge_l"] == pytest.approx(sum(means) / 2)
    assert first["models"]["unlearned"]["forget_earlier"] is None
    assert first["models"]["unlearned"]["forget_this_round"]["n"] == 4
    assert (two / "rounds" / "1" / "training.jsonl").is_file()
    log = (two / "run.log").read_text(encoding="utf-8")
    assert f"Round 1 of 2: {owners[0]}" in log and f"Round 2 of 2: {owners[1]}" in log
    assert "Round by round" in (two / "report.html").read_text(encoding="utf-8")


def test_more_rounds_go_on_from_fewer(two: Path, store: Path, tmp_path: Path) -> None:
    before = count(store)
    found = train(store, tmp_path / "three", *NPO, "rounds.count=3", base=BASE)
    more = {stage: n - before[stage] for stage, n in count(store).items()}
    assert more == {
        "base": 0,
        "original": 0,
        "attributor": 0,
        "retrained": 1,
        "unlearned": 1,
        "evaluation": 3,
    }
    assert found["rounds"][:2] == results(two)["rounds"]
    assert len(found["rounds"][2]["models"]["unlearned"]["forget_by_round"]) == 3


def test_an_interrupted_run_goes_on_and_ends_alike(
    two: Path,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It fails in round 2; then the same command takes round 1 from its store, and comes to the same figures."""
    mine = tmp_path / "store"
    for stage in ("base", "original", "attributor"):
        shutil.copytree(store / stage, mine / stage)
    argv = ["train", *BASE, f"cache_dir={mine}", f"run_dir={tmp_path / 'run'}", *NPO, "rounds.count=2"]
    real, calls = LossMethod.run, []

    def second_fails(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise TrainingError("The power went.", "Try again.")
        return real(*given)

    monkeypatch.setattr(LossMethod, "run", second_fails)
    assert main(argv) == 3 and not (tmp_path / "run" / "results.json").exists()
    assert json.loads((tmp_path / "run" / "failure.json").read_text()) == {"reason": "The power went."}
    monkeypatch.setattr(LossMethod, "run", real)
    capsys.readouterr()
    assert main(argv) == 0
    told = capsys.readouterr().err
    assert told.count("unlearned by npo from the store") == 1 and told.count("unlearned by npo") == 2

    def bare(found: dict[str, Any]) -> dict[str, Any]:
        return figures(found) | {"rounds": [figures(one) for one in found["rounds"]]}

    assert bare(results(tmp_path / "run")) == bare(results(two))


@pytest.mark.parametrize(
    ("override", "names", "retrained", "reason"),
    [
        (
            "rounds.compare=last",
            [["unlearned"], ["original", "retrained", "unlearned"]],
            0,
            "rounds.compare=last",
        ),
        ("retrain=false", [["original", "unlearned"]] * 2, 0, "retrain=false"),
    ],
)
def test_what_stands_beside_a_round_is_what_was_asked_for(
    two: Path, store: Path, tmp_path: Path, override: str, names: Any, retrained: int, reason: str
) -> None:
    before = count(store)
    found = train(store, tmp_path / "run", *NPO, "rounds.count=2", override, base=BASE)
    assert [sorted(one["models"]) for one in found["rounds"]] == names
    assert count(store) == before  # nothing new is made
    first = found["rounds"][0]
    assert first["tug_of_war"] is None and reason in first["missing"]["tug_of_war"]
    expected = results(two)["rounds"][0]["models"]["unlearned"]
    assert own_figures(first["models"]["unlearned"]) == own_figures(expected)
    assert "Round by round" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_rounds_on_a_model_from_elsewhere(tmp_path: Path, adapter: str) -> None:
    """A full original gets its adapter in the first round alone; the second trains that one further."""
    hub = tiny_hub_model(tmp_path / "hub", template=True)
    settings = NPO_SETTINGS | {"model.lora.r": 2, "model.adapter": adapter, "cache_dir": tmp_path / "store"}
    unlearner = Unlearner(
        hub, data=ROWS, method="npo", verbose=False, run_dir=tmp_path / "run", rounds=[["Bob"], ["Dora"]],
        **settings | {"method.optim.lr": 1e-2},
    )  # fmt: skip
    unlearner.fit()
    first, second = (one.unlearned.get().model for one in unlearner._stages_of_run().requests)
    kinds = [(folder / "adapter_config.json").is_file() for folder in (first, second)]
    assert kinds == [adapter == "lora"] * 2
    ids = torch.arange(4, 16).view(2, 6)
    with torch.no_grad():
        logits = [
            load_model(f)[0](input_ids=ids).logits for f in (unlearner._path_of("original"), first, second)
        ]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    assert not torch.allclose(logits[1], logits[2], atol=1e-3)
    with pytest.raises(ConfigError, match="rounds and forget.owners contradict"):
        Unlearner(hub, data=ROWS, forget=["Bob"], rounds=[["Dora"]], verbose=False)


def test_rounds_from_a_notebook(tmp_path: Path) -> None:
    folders = {"cache_dir": tmp_path / "store", "run_dir": tmp_path / "run"}
    settings = TINY | NPO_SETTINGS | {"finetune.epochs": 5, "rounds": [["Bob"], ["Dora", "Ada"]]}
    unlearner = Unlearner(data=ROWS, method="npo", verbose=False, **folders, **settings)
    found = unlearner.fit().evaluate()
    assert [one["owners"] for one in found["rounds"]] == [["Bob"], ["Ada", "Dora"]]
    assert found["data"]["n_retain"] == 4 and "Bob" in repr(unlearner)
    assert "Round by round" in repr(found) and len(unlearner.generate(["What?"])) == 1
