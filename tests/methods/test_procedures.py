"""RMU, PDU, SCRUB, task vectors: their mathematics by hand, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from loss_fixture import END, HALVES, METHODS, QUARTERS, ROWS, gradient, padded, tiny, weight_gradient
from torch import Tensor

from dareu.data.render import Encoded
from dareu.methods import pdu, rmu, scrub, task_vector
from dareu.models.layers import activations
from dareu.models.logprobs import IGNORE, shift

# --- RMU ----------------------------------------------------------------------------------------------------------


def test_squared_distance_by_hand() -> None:
    # two tokens of dimension 2 count: ((1−3)² + (2−0)²)/2 = 4 and ((3−3)² + (1−0)²)/2 = .5, mean 2.25;
    # the slope is 2(a − target) / (dimensions · tokens) = (a − target)/2
    acts = torch.tensor([[[1.0, 2.0], [3.0, 1.0], [9.0, 9.0]]], requires_grad=True)
    loss = rmu.squared_distance(acts, torch.tensor([3.0, 0.0]), torch.tensor([[1, 1, 0]]))
    assert loss.item() == pytest.approx(2.25)
    assert gradient(loss, acts) == pytest.approx([-1.0, 1.0, 0.0, 0.5, 0.0, 0.0])


def test_random_direction_is_a_unit_vector_of_its_seed_alone() -> None:
    one = rmu.random_direction(7, 41)
    torch.manual_seed(5)
    assert torch.equal(one, rmu.random_direction(7, 41))
    assert one.norm().item() == pytest.approx(1.0) and (one >= 0).all()
    assert not torch.allclose(one, rmu.random_direction(7, 42))


@pytest.mark.parametrize(
    ("layer", "layers", "index"),
    [
        (0.25, 32, 7),
        (0.25, 4, 0),
        (0.5, 4, 1),
        (0.75, 4, 2),
        (1.0, 4, 3),
        (0.01, 4, 0),
        (3, 4, 3),
        (-1, 4, 3),
    ],
)
def test_layer_index(layer: float, layers: int, index: int) -> None:
    assert rmu.layer_index(layer, layers) == index


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there(layer: int) -> None:
    with pytest.raises(IndexError):
        rmu.layer_index(layer, 4)


# --- PDU ----------------------------------------------------------------------------------------------------------


def test_logit_margin_by_hand() -> None:
    # (4 − 2)² = 4 and (3 − 0)² = 9 over two tokens; the slope 2(max − mean)(onehot(max) − 1/V)/tokens:
    # 2·2·(2/3, −1/3, −1/3)/2 at the first, 2·3·(−1/3, −1/3, 2/3)/2 at the second
    logits = torch.tensor([[[4.0, 1.0, 1.0], [-1.0, -2.0, 3.0], [50.0, 0.0, 0.0]]], requires_grad=True)
    loss = pdu.logit_margin(logits, torch.tensor([[1, 1, 0]]))
    assert loss.item() == pytest.approx(6.5)
    assert gradient(loss, logits) == pytest.approx([4 / 3, -2 / 3, -2 / 3, -1, -1, 2, 0, 0, 0])
    assert pdu.logit_margin(torch.full((1, 2, 5), 7.0), torch.ones(1, 2)).item() == 0.0


def test_logit_margin_takes_logits_and_mask_both_shifted() -> None:
    # Positions 1 and 2 predict the answer's tokens 3 and 1. Labels shifted without their mask would read 2 and 3.
    logits = torch.zeros(1, 4, 3)
    logits[0, 1, 0], logits[0, 2, 0], logits[0, 3, 0] = 3.0, 6.0, math.inf  # margins 2 and 4
    moved, _, mask = shift(logits, torch.tensor([[-100, -100, 2, 1]]))
    assert pdu.logit_margin(moved, mask).item() == pytest.approx((4 + 16) / 2)


def test_dual_ascent() -> None:
    assert pdu.dual_ascent(1.0, retain_loss=0.5, epsilon=0.3, step_size=5.0) == pytest.approx(2.0)
    assert pdu.dual_ascent(1.0, retain_loss=0.2, epsilon=0.3, step_size=5.0) == pytest.approx(0.5)
    assert pdu.dual_ascent(0.1, retain_loss=0.0, epsilon=0.3, step_size=5.0) == 0.0


# --- SCRUB --------------------------------------------------------------------------------------------------------


def test_divergence_by_hand() -> None:
    # KL((½, ½) ‖ (¼, ¾)) = ½ ln 4/3 at one of two tokens, 0 at the other; d KL(ref ‖ softmax z)/dz = softmax z − ref
    then = torch.tensor([[HALVES, HALVES, HALVES]])
    now = torch.tensor([[QUARTERS, HALVES, [9.0, 0.0]]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0]])
    assert scrub.divergence(now, then, mask).item() == pytest.approx(0.25 * math.log(4 / 3))
    loss = scrub.divergence_ascent(now, then, mask)
    assert loss.item() == pytest.approx(-0.25 * math.log(4 / 3))
    assert gradient(loss, now) == pytest.approx([0.125, -0.125, 0, 0, 0, 0])


def test_max_steps_come_first_in_the_first_epochs_alone() -> None:
    # 2 max and 3 min steps an epoch, max steps in two epochs of three
    walk = [scrub.scrub_place(s, 2, 3, 2) for s in range(scrub.scrub_length(3, 2, 3, 2))]
    assert "".join("+-"[not up] for up, _ in walk) == "++---++------"
    assert [n for up, n in walk if up] == [0, 1, 2, 3]
    assert [n for up, n in walk if not up] == list(range(9))
    assert scrub.scrub_length(1.5, 2, 3, 4) == 5 + 2 * 2  # no more max epochs than epochs
    assert [scrub.scrub_place(s, 2, 3, 0)[0] for s in range(4)] == [False] * 4


# --- task vectors -------------------------------------------------------------------------------------------------


def test_negate_by_hand() -> None:
    # (1, 2) went to (3, 1): half of it backwards is (0, 2.5)
    found = task_vector.negate(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]), 0.5)
    assert found.tolist() == [0.0, 2.5]


# --- through the model: padding, batches, −100 --------------------------------------------------------------------


def rmu_of(model: object, rows: list[Encoded], **padding: object) -> Tensor:
    batch = padded(rows, **padding)  # type: ignore[arg-type]
    acts = activations(model, model, 0, batch["input_ids"], batch["attention_mask"])
    target = 2 * rmu.random_direction(16, 3)
    return rmu.squared_distance(acts, target, batch["labels"] != IGNORE)


def pdu_of(model: object, rows: list[Encoded], **padding: object) -> Tensor:
    batch = padded(rows, **padding)  # type: ignore[arg-type]
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # type: ignore[operator]
    moved, _, mask = shift(logits, batch["labels"])
    return pdu.logit_margin(moved, mask)


def scrub_of(model: object, rows: list[Encoded], **padding: object) -> Tensor:
    batch = padded(rows, **padding)  # type: ignore[arg-type]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    then, _, mask = shift(tiny(1)(**inputs).logits.detach(), batch["labels"])
    now, _, _ = shift(model(**inputs).logits, batch["labels"])  # type: ignore[operator]
    return scrub.divergence_ascent(now, then, mask)


THROUGH = pytest.mark.parametrize("loss", [rmu_of, pdu_of, scrub_of])


@THROUGH
@pytest.mark.parametrize("padding", [{"side": "left"}, {"more": 5}, {"pad": 15, "side": "left", "more": 5}])
def test_padding_changes_neither_loss_nor_gradient(loss, padding) -> None:  # type: ignore[no-untyped-def]
    model = tiny(0)
    plain, other = loss(model, ROWS), loss(model, ROWS, **padding)
    torch.testing.assert_close(other, plain, atol=1e-5, rtol=1e-5)
    if loss is rmu_of:  # what comes after the block has no gradient
        chosen = list(model.model.layers[0].parameters())
        one, two = ([g.clone() for g in torch.autograd.grad(x, chosen)] for x in (plain, other))
        torch.testing.assert_close(one, two, atol=2e-5, rtol=1e-4)
        return
    torch.testing.assert_close(
        weight_gradient(model, other), weight_gradient(model, plain), atol=1e-4, rtol=1e-4
    )


@THROUGH
def test_a_split_batch_is_the_weighted_mean_of_its_parts(loss) -> None:  # type: ignore[no-untyped-def]
    model = tiny(0)
    parts = [ROWS[:1], ROWS[1:]]
    tokens = [sum(len(r.response_ids) for r in part) for part in parts]
    mean = sum(n * loss(model, p) for n, p in zip(tokens, parts, strict=True)) / sum(tokens)
    torch.testing.assert_close(mean, loss(model, ROWS), atol=1e-5, rtol=1e-5)


def test_the_end_of_text_token_counts_although_it_is_the_pad_token() -> None:
    labels = padded(ROWS, pad=END)["labels"]
    assert (labels != IGNORE).sum(1).tolist() == [3, 5, 2, 1]
    assert shift(torch.zeros(*labels.shape, 1), labels)[2].sum(1).tolist() == [3, 5, 2, 1]


def test_what_is_masked_is_never_read() -> None:
    mask = torch.tensor([[0, 1, 0]])
    for poison in (math.inf, math.nan):
        acts = torch.tensor([[[poison, poison], [1.0, 1.0], [poison, poison]]], requires_grad=True)
        for loss in (
            rmu.squared_distance(acts, torch.zeros(2), mask),
            pdu.logit_margin(acts, mask),
            scrub.divergence(acts, torch.zeros(1, 3, 2), mask),
        ):
            acts.grad = None
            loss.backward()
            assert acts.grad is not None and math.isfinite(loss.item()) and acts.grad.isfinite().all()


def test_rows_read_what_their_losses_take() -> None:
    batch = {
        "activations": torch.ones(1, 2, 3), "target": torch.zeros(3), "mask": torch.ones(1, 2),
        "logits": torch.ones(1, 2, 3), "reference_logits": torch.zeros(1, 2, 3),
    }  # fmt: skip
    for name in ("rmu", "pdu", "scrub"):
        method = METHODS[name]
        assert method.loss(**{key: batch[key] for key in method.reads}).shape == ()
        assert method.needs_reference == (name == "scrub")
