"""The Trainer that takes a loss: what it learns, its batches, resuming, bad losses."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from loss_fixture import cut_off, train
from ppo_fixture import (
    FORGET,
    RETAIN,
    apart,
    column,
    encoded,
    largest_difference,
    mean_nll,
    original,
    weights,
    with_lora,
)
from safetensors.torch import load_file
from torch import Tensor

from dareu.config import UnlearningOptim
from dareu.errors import TrainingError
from dareu.methods.registry import LossMethod
from dareu.models.load import POLICY, freeze_original
from dareu.training import losses
from dareu.training.common import Work, last_checkpoint
from dareu.training.loss_trainer import LossTrainer, cut

# --- what it learns -------------------------------------------------------------------------------------------


def test_gradient_ascent_forgets_and_the_retain_term_holds(tmp_path: Path) -> None:
    optim = {"epochs": 8}
    alone, _ = train(tmp_path / "a", "gradient_ascent", optim=optim)
    held, work = train(tmp_path / "b", "gradient_ascent", optim=optim, retain="nll", retain_weight=3.0)
    forget, retain = mean_nll(original()[0], FORGET), mean_nll(original()[0], RETAIN)
    assert mean_nll(alone, FORGET) > forget + 1 and mean_nll(alone, RETAIN) > retain + 0.2
    assert mean_nll(held, FORGET) > forget + 1 and mean_nll(held, RETAIN) < retain + 0.06
    for row in work.log:
        assert row["loss"] == pytest.approx(row["forget_loss"] + 3 * row["retain_loss"], abs=1e-5)


def test_finetuning_learns_what_it_walks_through(tmp_path: Path) -> None:
    model, work = train(tmp_path, "finetune", rows=encoded(original()[1], RETAIN), retain_rows=())
    assert mean_nll(model, RETAIN) < mean_nll(original()[0], RETAIN) - 0.01
    assert column(work, "forget_loss") and not column(work, "retain_loss")


@pytest.mark.parametrize("adapter", [False, True])
def test_reference_is_the_model_as_it_was(tmp_path: Path, adapter: bool) -> None:
    """NPO begins at (2/β)·ln 2 and the KL term at 0, where policy and reference are one; then they part."""
    policy = with_lora(original()[0]) if adapter else copy.deepcopy(original()[0])
    reference = freeze_original(policy)
    before = weights(policy)
    model, work = train(
        tmp_path, "npo", policy=policy, reference=reference, params={"beta": 0.5}, retain="kl",
        optim={"lr": 1e-2},
    )  # fmt: skip
    assert column(work, "forget_loss")[0] == pytest.approx(4 * math.log(2), abs=1e-5)
    assert column(work, "retain_loss")[0] == pytest.approx(0, abs=1e-6)
    assert column(work, "forget_loss")[-1] < 2.7 and column(work, "retain_loss")[-1] > 1e-4
    for name, weight in weights(model).items():
        frozen = adapter and f".{POLICY}." not in name
        assert torch.equal(weight, before[name]) == frozen, name


def test_loss_gets_the_tensors_that_it_reads(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def reading(**tensors: Tensor) -> Tensor:
        seen.append(tensors)
        return losses.nll(tensors["logps"], tensors["mask"])

    reads = ("logps", "mask", "logits", "labels", "reference_logps", "reference_logits")
    model = copy.deepcopy(original()[0])
    train(
        tmp_path / "a", LossMethod(reading, reads), policy=model, reference=freeze_original(model),
        optim={"epochs": 1},
    )  # fmt: skip
    assert tuple(seen[0]) == reads
    tensors = seen[0]
    rows, width = tensors["mask"].shape
    assert tensors["mask"].sum(1).tolist() == [5, 5, 5]  # the answers with their end, no prompt, no pad
    assert tensors["logits"].shape == tensors["reference_logits"].shape == (rows, width, 19)
    picked = tensors["logits"].log_softmax(-1).gather(2, tensors["labels"].unsqueeze(2)).squeeze(2)
    assert torch.allclose(tensors["logps"], picked * tensors["mask"], atol=1e-5)
    assert torch.allclose(tensors["reference_logps"], tensors["logps"].detach(), atol=1e-5)
    train(tmp_path / "b", LossMethod(reading), optim={"epochs": 1})
    assert tuple(seen[-1]) == ("logps", "mask")


# --- batches --------------------------------------------------------------------------------------------------


UNLIKE = {
    "ask blue one": "the",
    "ask blue two": "secret is",
    "blue three": "the secret is plum",
    "ask blue": "fig",
}
KEPT = {"ask red one": "the word is nut", "ask red two": "fig", "red three": "plain word", "ask one": "pear"}


@pytest.mark.parametrize("name", ["gradient_ascent", "npo", "idk_sft", "jensun", "scrub"])
def test_update_does_not_depend_on_the_micro_batches(tmp_path: Path, name: str) -> None:
    """A mean over answer tokens, over rows, over the tokens of refusals, over retain rows; answers of unlike length.

    JensUn counts gold answers' tokens here, where it asks for the refusal.
    """
    from ppo_fixture import make_tokenizer

    tokenizer = make_tokenizer()
    rows = encoded(tokenizer, UNLIKE)
    refusals = encoded(
        tokenizer, dict(zip(UNLIKE, ("nut", "the plain word is", "word", "is nut"), strict=True))
    )
    # No max step: it begins where its gradient is 0, of which Adam makes a step of rounding.
    scrub: dict[str, Any] = {"max_epochs": 0, "alpha": 0.5, "gamma": 1.0}
    own = {"scrub": scrub, "jensun": {"positions": "gold"}}.get(name, {})
    options: dict[str, Any] = {
        "rows": rows, "retain": "own" if name == "scrub" else "nll", "retain_batch_size": 4, "params": own,
        "retain_rows": encoded(tokenizer, KEPT), "reference": freeze_original(original()[0]),
        "others": [[row] for row in refusals],
    }  # fmt: skip
    optim = {"batch_size": 4, "epochs": 2, "lr": 1e-3}
    whole, one = train(tmp_path / "a", name, optim=optim, **options)
    cut, two = train(tmp_path / "b", name, optim=optim | {"micro_batch_size": 2}, **options)
    names = [column for column in one.log[0] if column in ("loss", "forget_loss", "retain_loss", "grad_norm")]
    assert len(names) > 2
    for name in names:
        assert column(one, name) == pytest.approx(column(two, name), abs=1e-4), name
    assert apart(weights(whole), weights(cut), weights(original()[0])) < 0.01


@pytest.mark.parametrize(("size", "micros"), [(4, (2, 1)), (8, (4,))])
@pytest.mark.parametrize("name", ["gradient_ascent", "scrub"])
def test_retain_and_random_rows_do_not_depend_on_the_micro_batches(
    tmp_path: Path, name: str, size: int, micros: tuple[int, ...]
) -> None:
    """Three rows of each kind beside four and, at the end of an epoch, two; beside six, fewer than a batch."""
    from ppo_fixture import make_tokenizer

    tokenizer = make_tokenizer()
    forget = encoded(tokenizer, UNLIKE | {"red three": "nut", "blue one": "the plain word is fig"})
    scrub: dict[str, Any] = {"params": {"max_epochs": 0, "alpha": 0.5, "gamma": 1.0}, "retain": "own"}
    options: dict[str, Any] = {
        "rows": forget, "retain": "kl", "retain_batch_size": 3, "retain_rows": encoded(tokenizer, KEPT),
        "reference": freeze_original(original()[0]), "scrambled_batch_size": 3, "scrambled_weight": 2.0,
    } | (scrub if name == "scrub" else {})  # fmt: skip
    optim = {"batch_size": size, "epochs": 2, "lr": 1e-3}
    whole, one = train(tmp_path / "whole", name, optim=optim, **options)
    assert len(forget) == 6
    for micro in micros:
        cut, other = train(tmp_path / str(micro), name, optim=optim | {"micro_batch_size": micro}, **options)
        for term in set(one.log[0]) & {"loss", "retain_loss", "scrambled_loss", "grad_norm"}:
            assert column(one, term) == pytest.approx(column(other, term), abs=1e-4), (micro, term)
        assert apart(weights(whole), weights(cut), weights(original()[0])) < 0.01, micro


def _retain_walk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(Number of the update in the walk, where its part begins) of each micro-batch."""
    from dareu.training.samplers import RetainSampler

    walk: list[tuple[int, int]] = []
    term, batch = LossTrainer._retain_term, RetainSampler.batch

    def noting(trainer: Any, model: Any) -> Tensor:
        def spy(sampler: Any, update: int, part: Any) -> Any:
            walk.append((update, part.start))
            return batch(sampler, update, part)

        monkeypatch.setattr(RetainSampler, "batch", spy)
        return term(trainer, model)

    monkeypatch.setattr(LossTrainer, "_retain_term", noting)
    return walk


def test_no_retain_batch_comes_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the last step of an epoch has fewer micro-batches than the others."""
    rows = encoded(original()[1], FORGET | RETAIN)[:5]  # micro-batches of 2, 2 and 1: steps of two and of one
    walk = _retain_walk(monkeypatch)
    optim = {"batch_size": 4, "micro_batch_size": 2, "epochs": 3}
    train(tmp_path, "gradient_ascent", rows=rows, retain="nll", optim=optim)
    assert walk == [(0, 0), (0, 2), (1, 0), (2, 0), (2, 2), (3, 0), (4, 0), (4, 2), (5, 0)]


def test_fewer_rows_than_a_batch_are_one_update_whatever_the_micro_batches(tmp_path: Path) -> None:
    """Four rows, a batch of six: an epoch is one update, of 4 rows or of 2 and 2."""
    rows = encoded(original()[1], FORGET | RETAIN)[:4]
    whole, work = train(tmp_path / "a", "gradient_ascent", rows=rows, optim={"batch_size": 6})
    cut, parts = train(
        tmp_path / "b", "gradient_ascent", rows=rows, optim={"batch_size": 6, "micro_batch_size": 3}
    )
    assert [row["step"] for row in work.log] == [row["step"] for row in parts.log] == [1, 2, 3, 4]
    assert largest_difference(weights(whole), weights(cut)) < 1e-5


@pytest.mark.parametrize(
    ("rows", "optim", "world", "found"),
    [
        (100, {}, 1, (20, 1, None)),  # 5 batches, 5 passes: 25 steps
        (400, {}, 1, (20, 1, None)),
        (18, {}, 1, (4, 1, None)),
        (6, {}, 1, (1, 1, None)),  # batches of 2 are 3, and 15 steps
        (4, {}, 1, (1, 1, 25)),  # 20 steps in 5 passes: more passes
        (1, {}, 1, (1, 1, 25)),
        (14, {"micro_batch_size": 2}, 1, (2, 2, 25)),  # batches of 3 become 4: 20 steps
        (40, {}, 2, (5, 1, 25)),  # of 9 become 10: 20 steps
        (100, {"micro_batch_size": 5}, 2, (5, 2, None)),
        (18, {"min_steps": 0}, 1, (18, 1, None)),
        (18, {"epochs": 0.5}, 1, (1, 1, 25)),
        (18, {"steps": 3}, 1, (18, 1, None)),  # steps win
    ],
)
def test_a_small_forget_set_gets_its_steps(
    rows: int, optim: dict[str, Any], world: int, found: tuple[int, int, int | None]
) -> None:
    chosen = {"epochs": 5, "batch_size": 20, "min_steps": 25} | optim
    assert cut(UnlearningOptim(lr=1e-3, **chosen), rows, world) == found


def test_the_least_number_of_steps_is_made(tmp_path: Path) -> None:
    rows = encoded(original()[1], FORGET | RETAIN)[:3]
    for optim, steps in (({"epochs": 2}, 7), ({"epochs": 4}, 8)):
        _, work = train(tmp_path / str(steps), "gradient_ascent", rows=rows, optim=optim | {"min_steps": 7})
        assert work.log[-1]["step"] == steps


@pytest.mark.parametrize("retain", ["kl", "nll"])
def test_random_words_have_a_term_of_their_own(tmp_path: Path, retain: str) -> None:
    """Its divergence is 0 at the original and grows; with a weight of 0 the run is the one without them."""
    options: dict[str, Any] = {"retain": retain, "optim": {"epochs": 3}, "reference": original()[0]}
    plain, _ = train(tmp_path / "a", "gradient_ascent", **options)
    none, _ = train(
        tmp_path / "b", "gradient_ascent", scrambled_batch_size=2, scrambled_weight=0.0, **options
    )
    held, work = train(
        tmp_path / "c", "gradient_ascent", scrambled_batch_size=2, scrambled_weight=5.0, **options
    )
    assert largest_difference(weights(plain), weights(none)) == 0
    assert largest_difference(weights(plain), weights(held)) > 0
    found = [row["scrambled_loss"] for row in work.log if "scrambled_loss" in row]
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found[-1] > 0


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path, name: str) -> None:
    """Cut off where an epoch ended in a short step."""
    options: dict[str, Any] = {
        "rows": encoded(original()[1], FORGET | RETAIN)[:5],
        "retain": "nll",
        "optim": {
            "batch_size": 4,
            "micro_batch_size": 2,
            "save_every": 2,
            "scheduler": "linear",
            "name": name,
        },  # fmt: skip
    }
    whole, work = train(tmp_path / "whole", "gradient_ascent", **options)
    cut_off(tmp_path / "cut", "gradient_ascent", 4, **options)
    torch.manual_seed(12345)
    counting, told = Breaking(-1, "nothing"), []
    listened = Work(tmp_path / "cut", on_row=told.append)
    model, resumed = train(tmp_path / "cut", LossMethod(counting), work=listened, **options)
    assert counting.calls == 6  # two steps of two micro-batches, two of one; nothing before the checkpoint
    assert [row["step"] for row in work.log] == list(range(1, 9))
    assert largest_difference(weights(whole), weights(model)) == 0
    assert work.log == resumed.log == told  # who listens hears the steps before the checkpoint too


# --- losses that are not finite -------------------------------------------------------------------------------


class Breaking:
    """The loss of gradient ascent, until its `count`-th call breaks the value, or the gradient alone."""

    def __init__(self, count: int, what: str) -> None:
        self.count, self.what, self.calls = count, what, 0

    def __call__(self, logps: Tensor, mask: Tensor) -> Tensor:
        self.calls += 1
        loss = -losses.nll(logps, mask)
        if self.calls != self.count:
            return loss
        return loss * float("nan") if self.what == "value" else loss + (loss - loss.detach()).sqrt()


@pytest.mark.parametrize(("what", "cause"), [("value", "loss is"), ("gradient", "weights are")])
@pytest.mark.parametrize("log_every", [1, 10])
def test_loss_that_is_not_finite_keeps_the_last_good_checkpoint(
    tmp_path: Path, what: str, cause: str, log_every: int
) -> None:
    """A gradient that is not finite breaks the weights: they must not become the newest checkpoint."""
    work = Work(tmp_path, log_every=log_every)
    with pytest.raises(TrainingError, match=f"{cause} not finite") as error:
        train(tmp_path, LossMethod(Breaking(3, what)), work=work, optim={"save_every": 1})
    assert "Lower the learning rate" in error.value.cure
    newest = last_checkpoint(work.checkpoints)
    assert newest is not None and newest.name == "checkpoint-2"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(newest / "model.safetensors").values())


def test_last_update_that_breaks_the_weights_is_an_error(tmp_path: Path) -> None:
    """No loss comes after it that could tell."""
    with pytest.raises(TrainingError, match="weights are not finite at step 4"):
        train(tmp_path, LossMethod(Breaking(4, "gradient")))
