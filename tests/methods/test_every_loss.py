"""What holds for every row of METHODS: padding, batches, labels that do not count, what is read, where training goes.

A new row comes under these tests by itself. Each loss is met through the trainer, with the tensors that it names.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from loss_fixture import END, METHODS, ROWS, WORLD, cut_off, padded, refusals, tiny, train
from ppo_fixture import (
    FORGET,
    RETAIN,
    apart,
    column,
    encoded,
    largest_difference,
    mean_nll,
    memorise,
    original,
    weights,
    with_lora,
)
from torch import Tensor
from transformers import TrainingArguments

from dareu.config.params import read_settings
from dareu.data.render import Encoded
from dareu.methods.rmu import RMUTrainer
from dareu.models.load import freeze_original
from dareu.models.logprobs import to_batch
from dareu.training import loss_trainer
from dareu.training.loss_spec import needs_reference
from dareu.training.loss_trainer import LossTrainer
from dareu.training.samplers import PairSampler, RetainSampler

COUNT = 19  # rows that these tests have seen; a new one is counted here
NAMES = sorted(METHODS)
EVERY = pytest.mark.parametrize("name", NAMES)
FORGETTING = pytest.mark.parametrize("name", [n for n in NAMES if METHODS[n].walks == "forget"])
WEIGHTED = {"wga", "satimp"}  # weights without a gradient: what falls is log p, not the value that is logged
RESPONSES = {"npo", "simnpo", "idk_dpo", "altpo", "flat"}  # means over responses; the others are over tokens

# What a method's own trainer has to be told; `test_procedure_trainers` has what else is true of these.
PARAMS: dict[str, dict[str, Any]] = {
    "rmu": {"layer": 0, "blocks": 1, "modules": ["mlp.*"], "coefficient": 3.0},
    "pdu": {"epsilon": 0.2, "step_size": 20.0},
    "scrub": {"max_epochs": 8, "alpha": 0.5, "gamma": 1.0},
    "jensun": {},
    "fresh_adapter": {},
}

FASTER = {
    "rmu": 3e-2,
    "pdu": 1e-2,
    "scrub": 1e-2,
}  # learning rates where a few steps of the others' would not show

# Other responses to the prompts of ROWS, of other lengths than theirs.
OTHERS = [Encoded(r.prompt_ids, ids) for r, ids in zip(
    ROWS, ([3, END], [4, 14, 3, END], [5, 4, 3, END], [9, 8, END]), strict=True
)]  # fmt: skip
EVEN = [Encoded([5, 6, 7], [8, 9, END]), Encoded([5], [10, 11, END]), Encoded([6, 7], [3, 12, END])]
EVEN += [Encoded([4], [7, 7, END])]
EVEN_OTHERS = [Encoded(r.prompt_ids, [3 + i, 14, END]) for i, r in enumerate(EVEN)]


def test_every_row_is_met() -> None:
    assert len(NAMES) == COUNT
    assert set(NAMES) > RESPONSES


def fitted(seed: int, steps: int) -> Any:
    """A model that half knows every answer here, so that no loss is at an end of its range."""
    found = tiny(seed)
    batch = to_batch([*ROWS, *OTHERS, *EVEN, *EVEN_OTHERS], END, "cpu")
    optimizer = torch.optim.AdamW(found.parameters(), lr=1e-2)
    for _ in range(steps):
        found(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return found


@pytest.fixture(scope="module")
def model() -> Any:
    return fitted(0, 25)


@pytest.fixture(scope="module")
def reference() -> Any:
    return fitted(1, 15).requires_grad_(False)


@pytest.fixture
def build(tmp_path: Path, model: Any, reference: Any) -> Callable[..., LossTrainer]:
    """A trainer around `name` whose other responses are `others`, as `train_with_loss` makes one."""

    def make(
        name: str, others: Sequence[Encoded] = OTHERS, pad: int = END, retain: str = "none"
    ) -> LossTrainer:
        row = METHODS[name]
        return (row.trainer or LossTrainer)(
            model=copy.deepcopy(model)
            if row.trainer is RMUTrainer
            else model,  # it freezes most of the model
            args=TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]),
            train_dataset=list(enumerate(ROWS)),
            method=row,
            params={},
            settings=read_settings(row.settings, PARAMS[name]) if row.settings else None,
            forget_weight=1.0,
            retain=retain,
            retain_weight=1.0,
            retain_sampler=RetainSampler(EVEN, 4, 0),
            pair_sampler=PairSampler([[other] for other in others], 0) if row.pairs else None,
            reference=reference if needs_reference(row, retain) else None,
            tokenizer=SimpleNamespace(pad_token_id=pad),
        )

    return make


def batch_of(
    rows: Sequence[Encoded], numbers: Sequence[int] | None = None, **padding: Any
) -> dict[str, Tensor]:
    """A batch of forget rows as the collator gives it; `numbers` say which they are."""
    return {**padded(rows, **padding), "number": torch.tensor(numbers or range(len(rows)))}


def loss_and_gradient(trainer: LossTrainer, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    if METHODS["scrub"] is trainer.method:  # its trainer draws the rows of a max step itself
        trainer._batch_of = lambda *_: batch  # type: ignore[method-assign]
    loss = trainer.compute_loss(trainer.model, batch)
    found = torch.autograd.grad(loss, [p for p in trainer.model.parameters() if p.requires_grad])
    return loss.detach(), torch.cat([g.flatten() for g in found])


def close(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    largest = one[1].abs().max()
    assert largest > 1e-3  # there is a gradient to compare
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one[1] / largest, other[1] / largest, atol=1e-4, rtol=0)


# --- padding and labels -------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("padding", [{"side": "left"}, {"more": 5}, {"side": "left", "more": 5}])
def test_padding_changes_nothing(
    build: Callable[..., LossTrainer], monkeypatch: pytest.MonkeyPatch, name: str, padding: dict[str, Any]
) -> None:
    """Neither that of the forget rows nor that of the other responses."""
    plain = loss_and_gradient(build(name), batch_of(ROWS))
    monkeypatch.setattr(loss_trainer, "to_batch", lambda rows, pad, device: padded(rows, pad=pad, **padding))
    close(loss_and_gradient(build(name), batch_of(ROWS, **padding)), plain)


@EVERY
def test_end_of_text_counts_although_it_is_the_pad_token(
    build: Callable[..., LossTrainer], name: str
) -> None:
    as_pad = loss_and_gradient(build(name, pad=END), batch_of(ROWS, pad=END))
    close(loss_and_gradient(build(name, pad=15), batch_of(ROWS, pad=15)), as_pad)
    # and it counts: without it the loss is another; which token it is, losses of whole distributions do not read
    instead = [] if set(METHODS[name].reads) <= {"logits", "reference_logits", "mask"} else [13]
    cut, others = (
        [Encoded(r.prompt_ids, [*r.response_ids[:-1], *instead]) for r in rows] for rows in (ROWS, OTHERS)
    )
    without, _ = loss_and_gradient(build(name, others), batch_of(cut))
    assert abs(without - as_pad[0]) > 1e-4


@EVERY
def test_what_stands_where_nothing_counts_is_not_read(build: Callable[..., LossTrainer], name: str) -> None:
    """Garbage in every tensor at prompt and pad positions; a label that is none would be an index there."""
    trainer, batch = build(name), batch_of(ROWS, side="left", more=3)
    tensors = trainer._read(trainer.model, batch)
    dirty = {key: value.detach().clone() for key, value in tensors.items()}
    counted = batch["labels"] != -100  # of activations, the answer's own; else what is predicted before it
    masks = {"": counted if trainer.method.trainer is RMUTrainer else counted[:, 1:], "other_": None}
    for key, value in dirty.items():
        if key == "target":  # has no positions
            continue
        prefix = "other_" if key.startswith("other_") else ""
        mask = dirty["other_mask"].bool() if prefix else masks[""]
        assert mask is not None and not mask.all()
        if not key.endswith("mask"):
            assert not key.endswith("labels") or value[~mask].eq(0).all()  # −100 never comes as far as this
            value[~mask] = 15 if key.endswith("labels") else -7.0
            if value.dim() == 3:
                value[..., -1] = torch.where(mask, value[..., -1], 1e4)
    clean = METHODS[name].loss(**tensors)
    assert METHODS[name].loss(**dirty).item() == pytest.approx(clean.item(), abs=1e-6)
    assert math.isfinite(clean.item())


# --- batches ------------------------------------------------------------------------------------------------------


@EVERY
def test_a_split_batch_is_the_mean_of_its_parts(build: Callable[..., LossTrainer], name: str) -> None:
    """Loss and gradient of parts with as many rows and tokens each average to those of the whole."""
    trainer = build(name, EVEN_OTHERS)
    whole = loss_and_gradient(trainer, batch_of(EVEN))
    parts = [loss_and_gradient(trainer, batch_of(EVEN[i : i + 2], [i, i + 1])) for i in (0, 2)]
    close(((parts[0][0] + parts[1][0]) / 2, (parts[0][1] + parts[1][1]) / 2), whole)
    assert abs(parts[0][0] - parts[1][0]) > 1e-4  # the parts differ
    close(loss_and_gradient(trainer, batch_of(EVEN[::-1], [3, 2, 1, 0])), whole)


@EVERY
def test_parts_of_other_lengths_weigh_by_what_is_counted(
    build: Callable[..., LossTrainer], name: str
) -> None:
    """Answers of several lengths: means over responses weigh by rows, the others by tokens."""
    trainer = build(name)
    assert (METHODS[name].mean_over == "rows") == (name in RESPONSES)
    assert (METHODS[name].mean_over == "other_tokens") == ("mask" not in METHODS[name].reads)

    def weight(numbers: list[int]) -> int:
        rows = OTHERS if "mask" not in METHODS[name].reads else ROWS
        tokens = [
            len(rows[i].response_ids) - (name == "ceu") for i in numbers
        ]  # CE-U leaves the first one out
        return len(numbers) if name in RESPONSES else sum(tokens)

    parts = [[0], [1, 2, 3]]
    losses = [loss_and_gradient(trainer, batch_of([ROWS[i] for i in part], part))[0] for part in parts]
    mean = sum(weight(p) * loss for p, loss in zip(parts, losses, strict=True)) / sum(map(weight, parts))
    torch.testing.assert_close(
        torch.as_tensor(mean), loss_and_gradient(trainer, batch_of(ROWS))[0], atol=1e-5, rtol=1e-5
    )


@EVERY
def test_update_does_not_depend_on_the_micro_batches(tmp_path: Path, name: str) -> None:
    """Two accumulated micro-batches make the step of one batch; all answers have five tokens."""
    found = []
    for micro in (4, 2):
        policy = copy.deepcopy(original()[0])
        model, work = train(
            tmp_path / str(micro), name, policy=policy, reference=freeze_original(memorise(60)), rows=WORLD,
            others=refusals(WORLD), retain=(METHODS[name].retains or ["js"])[0], retain_batch_size=2,
            params=PARAMS.get(name), optim={"batch_size": 4, "micro_batch_size": micro, "epochs": 3},
        )  # fmt: skip
        found.append((weights(model), work))
    assert apart(found[0][0], found[1][0], weights(original()[0])) < 0.01
    for part in ("forget_loss", "retain_loss"):
        assert column(found[0][1], part) == pytest.approx(column(found[1][1], part), abs=1e-4)


# --- what is computed ---------------------------------------------------------------------------------------------


@EVERY
def test_only_the_passes_that_the_loss_needs(build: Callable[..., LossTrainer], name: str) -> None:
    """One through the policy for each batch that is read, one through the reference where that is read."""
    reads = METHODS[name].reads
    batches = {key.startswith("other_") for key in reads}
    frozen = {key.startswith("other_") for key in reads if "reference" in key}
    trainer = build(name)
    model = trainer.model
    assert (trainer.reference is not None) == bool(frozen)
    passes: list[str] = []
    hooks = [
        m.register_forward_hook(lambda *_, who=who: passes.append(who))
        for who, m in (("policy", model), ("reference", trainer.reference))
        if m is not None
    ]
    trainer.compute_loss(model, batch_of(ROWS))
    for hook in hooks:
        hook.remove()
    assert passes.count("policy") == len(batches) and passes.count("reference") == len(frozen)


@pytest.mark.parametrize(("retain", "needed"), [("none", False), ("nll", False), ("kl", True), ("js", True)])
def test_a_retain_term_needs_the_reference_where_it_reads_it(retain: str, needed: bool) -> None:
    assert needs_reference(METHODS["wga"], retain) is needed
    assert needs_reference(METHODS["wga"], retain, scrambled=2)
    assert needs_reference(METHODS["npo"], retain)


@pytest.mark.parametrize("retain", ["kl", "js"])
def test_divergences_of_the_retain_term_are_of_answers_alone(
    build: Callable[..., LossTrainer], monkeypatch: pytest.MonkeyPatch, retain: str
) -> None:
    """Not of prompt or padding: more of it changes nothing, and the value is the mean over answer positions."""
    trainer = build("wga", retain=retain)
    plain = trainer._retain_term(trainer.model)
    batch = to_batch(trainer.retain_sampler.batch(0), END, "cpu")  # type: ignore[union-attr]
    by_hand = []
    for row, labels in enumerate(batch["labels"]):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()].unsqueeze(0)
        now, then = (m(input_ids=ids).logits[0].softmax(-1) for m in (trainer.model, trainer.reference))
        for place in range(int((labels == -100).sum()) - (len(labels) - ids.size(1)), ids.size(1)):
            p, q = then[place - 1], now[place - 1]
            m = q if retain == "kl" else (p + q) / 2
            kl = (p * (p / m).log()).sum()
            by_hand.append(kl if retain == "kl" else (kl + (q * (q / m).log()).sum()) / 2)
    assert len(by_hand) == 12
    assert plain.item() == pytest.approx(torch.stack(by_hand).mean().item(), abs=1e-5)
    monkeypatch.setattr(loss_trainer, "to_batch", lambda rows, pad, device: padded(rows, "left", pad, more=4))
    again = build("wga", retain=retain)
    assert again._retain_term(again.model).item() == pytest.approx(plain.item(), abs=1e-5)


# --- where training goes ------------------------------------------------------------------------------------------


@FORGETTING
def test_a_few_steps_forget_and_the_retain_set_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The loss falls, the forget answers get less likely, the retain answers stay; no reference that nothing reads."""
    retain = (METHODS[name].retains or ["nll"])[0]
    if not needs_reference(METHODS[name], retain):
        monkeypatch.setattr(loss_trainer, "reference_logits", None)  # a call would be an error
    rows = encoded(original()[1], FORGET)
    policy = copy.deepcopy(original()[0])
    before = {"forget": mean_nll(policy, FORGET), "retain": mean_nll(policy, RETAIN)}
    said = encoded(original()[1], {"ask": "the word is fig"})[0].response_ids  # half known, to retain prompts
    model, work = train(
        tmp_path, name, policy=policy, rows=rows, others=[[Encoded(row.prompt_ids, said)] for row in rows],
        reference=freeze_original(policy) if needs_reference(METHODS[name], retain) else None,
        retain=retain, retain_weight=3.0, retain_batch_size=4, params=PARAMS.get(name),
        optim={"epochs": 8, "lr": FASTER.get(name, 3e-3)},
    )  # fmt: skip
    values = column(work, "forget_loss")
    assert len(values) == 8
    assert name in WEIGHTED or values[-1] < values[0] - 0.01
    assert mean_nll(model, FORGET) > before["forget"] + 0.3
    assert mean_nll(model, RETAIN) < before["retain"] + 0.2


def test_dpo_begins_where_policy_and_reference_are_one(tmp_path: Path) -> None:
    """Under LoRA the reference is a frozen adapter, of the other responses too."""
    policy = with_lora(original()[0])
    rows = encoded(original()[1], FORGET)
    _, work = train(
        tmp_path, "idk_dpo", policy=policy, reference=freeze_original(policy), rows=rows, others=refusals(rows),
        params={"beta": 0.5}, retain="js", optim={"lr": 1e-2},
    )  # fmt: skip
    assert column(work, "forget_loss")[0] == pytest.approx(4 * math.log(2), abs=1e-5)
    assert column(work, "retain_loss")[0] == pytest.approx(0, abs=1e-6)
    assert column(work, "forget_loss")[-1] < 2.7 and column(work, "retain_loss")[-1] > 1e-5


def test_a_resumed_run_pairs_as_an_undisturbed_one(tmp_path: Path) -> None:
    """Which refusal stands beside a row is a function of seed, row and epoch."""
    rows = encoded(original()[1], FORGET | RETAIN)[:5]
    options: dict[str, Any] = {
        "rows": rows, "others": refusals(rows), "retain": "nll",
        "optim": {"batch_size": 4, "micro_batch_size": 2, "save_every": 3, "epochs": 4},
    }  # fmt: skip
    whole, work = train(tmp_path / "whole", "idk_sft", **options)
    cut_off(tmp_path / "cut", "idk_sft", 3, **options)
    model, resumed = train(tmp_path / "cut", "idk_sft", **options)
    assert [row["step"] for row in work.log] == list(range(1, 9))
    assert work.log == resumed.log
    assert largest_difference(weights(whole), weights(model)) == 0


def test_each_row_needs_its_other_responses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 rows and other responses to 0"):
        train(tmp_path, "idk_sft")


@pytest.mark.parametrize("positions", ["refusal", "gold"])
def test_jensun_reads_the_refusal_after_its_own_or_the_gold_tokens(tmp_path: Path, positions: str) -> None:
    """The first value, put together from p alone: refusal a, b and its end 9, which no other token is.

    After the gold answer's tokens the refusal without its end, over and over: a, b, a, … at each of its places.
    """
    model, tokenizer = original()
    assert tokenizer.eos_token_id != 9
    gold = encoded(tokenizer, {"ask blue": "the secret is fig"})[0]
    a, b = encoded(tokenizer, {"ask": "nut plum"})[0].response_ids[:2]
    refusal = Encoded(gold.prompt_ids, [a, b, 9])
    context, wanted = (refusal, [a, b, 9]) if positions == "refusal" else (gold, [a, b, a, b, a])
    ids = torch.tensor([context.prompt_ids + context.response_ids])
    assert len(context.response_ids) == len(wanted)
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(input_ids=ids).logits[0, len(context.prompt_ids) - 1 : -1]
    p = logits.softmax(-1)[torch.arange(len(wanted)), torch.tensor(wanted)]
    by_hand = (math.log(2) + 0.5 * (p * p.log() - (1 + p) * (1 + p).log())).mean()
    _, work = train(
        tmp_path, "jensun", rows=[gold], others=[[refusal]], params={"positions": positions},
        optim={"epochs": 1, "batch_size": 1},
    )  # fmt: skip
    assert column(work, "forget_loss")[0] == pytest.approx(float(by_hand), abs=1e-5)


@pytest.mark.parametrize("positions", ["refusal", "gold"])
def test_jensun_asks_for_the_refusal_at_the_places_named(tmp_path: Path, positions: str) -> None:
    """At the gold answer's places its context is the gold answer; the loss falls in both."""
    rows = encoded(original()[1], FORGET)
    said = encoded(original()[1], {"ask": "the word is fig"})[0].response_ids  # half known, to retain prompts
    model, work = train(
        tmp_path, "jensun", rows=rows, others=[[Encoded(row.prompt_ids, said)] for row in rows],
        params={"positions": positions}, retain="nll",
        optim={"epochs": 8, "lr": 1e-2},
    )  # fmt: skip
    values = column(work, "forget_loss")
    assert values[-1] < values[0] - 0.01
    assert mean_nll(model, FORGET) > mean_nll(original()[0], FORGET)
