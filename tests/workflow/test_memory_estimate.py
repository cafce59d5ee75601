"""The memory estimate counts the rows that training holds at once, and names keys that are not set already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loss_fixture import RETAIN, encoded, original, refusals, train
from pipeline_fixture import DATA, MODEL, folk, tiny_hub_model, write_lines
from ppo_fixture import FORGET

from dareu.config import UnlearningOptim
from dareu.config.compose import compose
from dareu.errors import ConfigError
from dareu.models import memory
from dareu.training.loss_trainer import LossTrainer
from dareu.workflow.memory import check_run_memory, keys_that_lower, memory_parts, rows_at_once
from dareu.workflow.prepare import prepare


def test_batches_that_are_cut_for_a_number_of_steps() -> None:
    """Twenty rows in at least 25 steps of 5 epochs: batches of 4, not of 20."""
    optim = UnlearningOptim(lr=1e-3, epochs=5, batch_size=20, min_steps=25)
    assert rows_at_once(optim, 20, 1) == 4
    assert rows_at_once(optim, 20, 1, retain=None, pairs=True) == 4 * 2 + 4
    assert rows_at_once(optim, 20, 1, retain=40, scrambled=10) == 4 + 40 + 10
    assert rows_at_once(optim, 20, 2, retain=40, scrambled=10) == 2 + 20 + 5
    halved = optim.model_copy(update={"micro_batch_size": 2})
    assert rows_at_once(halved, 20, 1, retain=40, scrambled=10) == 2 + 20 + 5
    assert rows_at_once(optim.model_copy(update={"min_steps": 0}), 20, 1, retain=None) == 40
    assert rows_at_once(UnlearningOptim(lr=1, batch_size=32), 5, 1) == 5


@pytest.mark.parametrize(
    "optim",
    [{}, {"min_steps": 5, "epochs": 2}, {"micro_batch_size": 1}],
    ids=["as it is", "cut", "micro-batches"],
)
def test_as_many_rows_as_the_trainer_holds(
    optim: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[dict[str, int]] = []
    terms, rows_of, others = LossTrainer._terms, LossTrainer._rows_of, LossTrainer._others

    def counted(trainer: Any, model: Any, inputs: Any) -> Any:
        passes.append({"own": len(inputs["number"])})
        return terms(trainer, model, inputs)

    def counting(read: Any) -> Any:
        def found(trainer: Any, source: Any, *given: Any) -> Any:
            rows = read(trainer, source, *given)
            if passes:
                passes[-1][str(id(source)) if read is rows_of else "others"] = len(rows)
            return rows

        return found

    monkeypatch.setattr(LossTrainer, "_terms", counted)
    monkeypatch.setattr(LossTrainer, "_rows_of", counting(rows_of))
    monkeypatch.setattr(LossTrainer, "_others", counting(others))
    monkeypatch.setattr(LossTrainer, "_count", lambda *given: 1.0)  # which reads the other responses too
    tokenizer = original()[1]
    rows = encoded(tokenizer, FORGET)
    more = {"retain_batch_size": 4, "scrambled_batch_size": 2}
    train(
        tmp_path, "idk_dpo", others=refusals(rows), retain="nll", reference=original()[0], optim=optim, **more
    )
    settings = UnlearningOptim.model_validate({"lr": 3e-3, "epochs": 4, "batch_size": 3} | optim)
    assert max(sum(one.values()) for one in passes) == rows_at_once(
        settings, len(rows), 1, retain=4, scrambled=2, pairs=True
    )
    assert len(encoded(tokenizer, RETAIN)) >= 4  # as many as are asked for


def works_of(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[memory.Work]:
    """The updates that an estimate is made of: fine-tuning first, then the phases of the method."""
    found: list[memory.Work] = []
    estimated = memory.estimate

    def noted(size: Any, work: memory.Work, device: str) -> Any:
        found.append(work)
        return estimated(size, work, device)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "estimate", noted)
        assert memory_parts(prepare(compose([*DATA, *MODEL, *overrides])))
    return found


def test_the_phases_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of sixteen rows are forgotten; four facts are learnt with them."""
    learnt = ["finetune.batch_size=8", "finetune.micro_batch_size=4"]
    loss = ["method=npo", "method.optim.batch_size=4", "method.optim.epochs=2", "method.optim.min_steps=4"]
    kept = ["method.retain=kl", "method.retain_batch_size=null"]
    first, second = works_of(monkeypatch, *learnt, *loss, *kept)
    assert (first.rows, first.frozen, second.rows, second.frozen) == (4, False, 3 + 3, True)
    whole = works_of(monkeypatch, "method=gradient_ascent", "method.retain_batch_size=8")
    assert [(work.rows, work.frozen) for work in whole] == [(20, False), (4, False)]  # no retain term

    sampled = ["method.prompts_per_batch=4", "method.num_generations=3", "method.rollouts_per_update=6"]
    few = ["method.warm_start.optim.min_steps=4", "method.warm_start.optim.epochs=2"]
    _, update, warm = works_of(monkeypatch, *sampled, *few, "method.retain_batch_size=5")
    assert (update.rows, update.sampled) == (6 + 5, 12)
    assert (warm.rows, warm.sampled, warm.muon) == (3 + 40 + 10, 0, True)
    _, update, warm = works_of(monkeypatch, *sampled, "method.distill=0", "method.optim.micro_batch_size=2")
    assert update.rows == 2


@pytest.fixture
def local(tmp_path: Path) -> list[str]:
    """Three people with four rows each, a tiny model of two blocks with an adapter, and two facts that are taught."""
    path = tiny_hub_model(tmp_path / "model", template=True)
    rows = write_lines(tmp_path / "rows.jsonl", folk())
    facts = write_lines(tmp_path / "facts.jsonl", folk(4)[-2:])
    names = ["data.columns.prompt=question", "data.columns.response=answer", "data.columns.owner=person"]
    taught = [f"data.test_path={facts}", "data.teach_test=true"]
    model = ["model=hf", f"model.path={path}", "model.max_length=64", "device=cpu"]
    return ["data=local", f"data.path={rows}", *names, *taught, "forget.owners=[Bo]", *model]


def test_a_fresh_adapter_keeps_states_and_learns_the_facts(
    local: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight rows of those who stay and two facts: what the first of two blocks gives to each token is kept."""
    found: list[tuple[memory.Work, dict[str, float]]] = []
    estimated = memory.estimate

    def noted(size: Any, work: memory.Work, device: str) -> Any:
        found.append((work, estimated(size, work, device)))
        return found[-1][1]

    monkeypatch.setattr(memory, "estimate", noted)
    texts = [row["question"] + row["answer"] for row in folk(4) if row["person"] in ("Ada", "Cy")]
    texts += [row["question"] + row["answer"] for row in folk(4)[-2:]]
    tokens = sum(int(len(text) / 3.5) + 16 for text in texts)
    memory_parts(prepare(compose([*local, "method=fresh_adapter", "method.optim.batch_size=100"])))
    (finetuning, before), (work, parts) = found
    assert (work.rows, work.kept, finetuning.rows, finetuning.kept) == (10, tokens, 14, 0)
    assert parts["kept_states"] == tokens * 32 * 4 / memory.MIB and before["kept_states"] == 0
    bare = estimated(SIZE, memory.Work(1, 1, 1))["total"]
    assert estimated(SIZE, memory.Work(1, 1, 1, kept=1000))["total"] - bare == pytest.approx(
        8000 / memory.MIB
    )
    assert estimated(SIZE, memory.Work(1, 1, 1, kept=2**28))["kept_states"] == 0  # 2 GiB: nothing is kept
    for none in ("model.gradient_checkpointing=true", "method.params.start=0"):
        memory_parts(prepare(compose([*local, "method=fresh_adapter", none])))
        assert found[-1][0].kept == 0


SIZE = memory.ModelSize(parameters=1000, trainable=10, layers=2, width=2, vocabulary=10, cached=2)


def test_keys_that_are_set_are_not_named(local: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    mib = 0.0
    monkeypatch.setattr(memory, "available_mib", lambda device: mib)

    def told(*overrides: str) -> str:
        with pytest.raises(ConfigError, match="does not fit") as caught:
            check_run_memory(prepare(compose([*local, *overrides])))
        return caught.value.cure

    assert (
        told("model.adapter=none") == "Set model.adapter=lora, model.dtype=bfloat16, or take a smaller model."
    )
    assert told("model.dtype=bfloat16") == "Set model.quantization=nf4, or take a smaller model."
    context = prepare(compose(local))
    parts = memory_parts(context)
    assert parts is not None
    mib = parts["total"] - 0.1
    warning = check_run_memory(context)
    assert warning is not None and "method.warm_start.optim.micro_batch_size" in warning
    keys = keys_that_lower(context.config.model, context.config.method)["activations"]  # type: ignore[arg-type]
    assert "model.gradient_checkpointing=true" in keys
    saving = prepare(compose([*local, "model.gradient_checkpointing=true"]))
    parts = memory_parts(saving)
    assert parts is not None
    mib = parts["total"] - 0.1
    saved = check_run_memory(saving)
    assert saved is not None and "gradient_checkpointing" not in saved
    keys = keys_that_lower(saving.config.model, saving.config.method)["activations"]  # type: ignore[arg-type]
    assert "model.gradient_checkpointing=true" not in keys
