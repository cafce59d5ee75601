"""The losses: values and gradients of two-token cases by hand, and what they must not depend on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from loss_fixture import (
    END,
    HALVES,
    LN2,
    METHODS,
    QUARTERS,
    ROWS,
    gradient,
    padded,
    row,
    tiny,
    weight_gradient,
)
from ppo_fixture import ppo_loss
from torch import Tensor

from dareu.data.render import Encoded
from dareu.errors import ConfigError
from dareu.methods import registry
from dareu.methods.gradient_ascent import gradient_ascent
from dareu.methods.npo import npo
from dareu.models.logprobs import kl_divergence, masked_mean, shift, token_logprobs
from dareu.training import losses


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny(0)


@pytest.fixture(scope="module")
def reference() -> Any:
    return tiny(1)


def scored(model: Any, rows: Sequence[Encoded], **padding: Any) -> tuple[Tensor, Tensor]:
    batch = padded(rows, **padding)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return token_logprobs(logits, batch["labels"])


# --- likelihood ---------------------------------------------------------------------------------------------------


def test_nll_and_gradient_ascent() -> None:
    # tokens of probability 1/2 and 1/4; the third is no answer token: (ln 2 + 2 ln 2) / 2
    mask = torch.tensor([[1, 1, 0]])
    logps = row(-LN2, -2 * LN2, -5.0)
    loss = losses.nll(logps, mask)
    assert loss.item() == pytest.approx(1.5 * LN2)
    assert gradient(loss, logps) == [-0.5, -0.5, 0.0]
    logps = row(-LN2, -2 * LN2, -5.0)
    loss = gradient_ascent(logps, mask)
    assert loss.item() == pytest.approx(-1.5 * LN2)
    assert gradient(loss, logps) == [0.5, 0.5, 0.0]


def test_nll_counts_tokens_and_not_rows() -> None:
    # (3 ln 2) / 3 tokens, although the mean of the row means is (1.5 + 0)/2 ln 2
    logps, mask = torch.tensor([[-LN2, -2 * LN2], [0.0, -9.0]]), torch.tensor([[1, 1], [1, 0]])
    assert losses.nll(logps, mask).item() == pytest.approx(LN2)
    assert losses.nll(logps, 0 * mask).item() == 0.0


def test_nll_through_logits() -> None:
    # V = 2. Position 0 has logits (0, 0) and predicts token 1, position 1 has (ln 3, 0) and predicts token 0:
    # −ln ½ and −ln ¾, and softmax − one-hot, over two tokens. What position 2 says is compared with nothing.
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0], [7.0, -7.0]]], requires_grad=True)
    loss = losses.nll(*token_logprobs(logits, torch.tensor([[-100, 1, 0]])))
    assert loss.item() == pytest.approx((LN2 + math.log(4 / 3)) / 2)
    assert gradient(loss, logits) == pytest.approx([0.25, -0.25, -0.125, 0.125, 0, 0])


# --- NPO ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_npo_at_the_reference(beta: float) -> None:
    # −(2/β) ln σ(0) = (2/β) ln 2; gradient 2σ(0)/B = 1/2 for each token of two responses
    logps = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    loss = npo(logps, torch.tensor([[1, 1], [1, 0]]), logps.detach(), beta)
    assert loss.item() == pytest.approx(2 / beta * LN2)
    assert gradient(loss, logps) == pytest.approx([0.5, 0.5, 0.5, 0.0])


def test_npo_by_hand() -> None:
    # log ratio over the answer: (−1 + 2) + (−½ + ½) = 1, so at β = 1 the loss is −2 ln σ(−1) = 2 ln(1 + e) = 2.626523,
    # its gradient 2σ(1) = 1.462117 for each token of it
    logps = row(-1.0, -0.5, -3.0)
    loss = npo(logps, torch.tensor([[1, 1, 0]]), torch.tensor([[-2.0, -0.5, -9.0]]), beta=1.0)
    assert loss.item() == pytest.approx(2.626523, abs=1e-5)
    assert gradient(loss, logps) == pytest.approx([1.462117, 1.462117, 0.0], abs=1e-5)
    # forgotten already (log ratio −1): 2σ(−1) = .537883, less push
    logps = row(-3.0, -0.5, -3.0)
    loss = npo(logps, torch.tensor([[1, 1, 0]]), torch.tensor([[-2.0, -0.5, -9.0]]), beta=1.0)
    assert gradient(loss, logps) == pytest.approx([0.537883, 0.537883, 0.0], abs=1e-5)


def test_npo_tends_to_gradient_ascent_on_the_sums() -> None:
    # β → 0: the loss without its constant is mean_B of the log ratio, and its gradient 1/B for each token
    logps = torch.tensor([[-1.0, -4.0], [-0.5, -9.0]], dtype=torch.float64, requires_grad=True)
    mask, then = torch.tensor([[1, 1], [1, 0]]), torch.tensor([[-2.0, -2.0], [-1.0, -1.0]])
    loss = npo(logps, mask, then, beta=1e-6)
    assert loss.item() - 2e6 * LN2 == pytest.approx((-1.0 + 0.5) / 2, abs=1e-5)
    assert gradient(loss, logps) == pytest.approx([0.5, 0.5, 0.5, 0.0], abs=1e-5)


# --- distillation -------------------------------------------------------------------------------------------------


def test_kl_divergence() -> None:
    # ½ ln 2 + ½ ln ⅔ = ½ ln 4/3; the other way round ¼ ln ½ + ¾ ln 3/2
    p, q = torch.tensor(HALVES), torch.tensor(QUARTERS)
    assert kl_divergence(p, q).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert kl_divergence(q, p).item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * LN2)
    assert kl_divergence(q, q + 3.0).item() == pytest.approx(0.0, abs=1e-6)  # logits count up to a constant


def test_kl_divergence_gradient() -> None:
    # d KL(p ‖ softmax z) / dz = softmax z − p
    q = torch.tensor(QUARTERS, requires_grad=True)
    assert gradient(kl_divergence(torch.tensor(HALVES), q), q) == pytest.approx([-0.25, 0.25])


def test_kl_retain_is_a_mean_over_answer_tokens() -> None:
    # two of three positions count, one of them with divergence 0: (½ ln 4/3 + 0) / 2
    then = torch.tensor([[HALVES, HALVES, HALVES]])
    now = torch.tensor([[QUARTERS, HALVES, [9.0, 0.0]]], requires_grad=True)
    loss = masked_mean(kl_divergence(then, now), torch.tensor([[1, 1, 0]]))
    assert loss.item() == pytest.approx(0.25 * math.log(4 / 3))
    assert gradient(loss, now) == pytest.approx([-0.125, 0.125, 0, 0, 0, 0])
    assert masked_mean(torch.ones(1, 2), torch.zeros(1, 2)).item() == 0.0


# --- PPO ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        # old value 0, clip .2: the clipped value is ±.2 wherever |V| ≥ .2
        (0.1, 1.0, 0.5 * 0.81, -0.9),  # inside: ½(V − R)², slope V − R
        (0.5, 1.0, 0.5 * 0.64, 0.0),  # came too near to R = 1: the loss stays that of .2
        (-0.5, 1.0, 0.5 * 2.25, -1.5),  # went away from R: no clipping
        (-0.5, -1.0, 0.5 * 0.64, 0.0),  # the same below
        (0.5, -1.0, 0.5 * 2.25, 1.5),
    ],
)
def test_value_loss_of_one_token(value: float, target: float, loss: float, slope: float) -> None:
    values = row(value)
    found = losses.value_loss(values, torch.zeros(1, 1), torch.tensor([[target]]), torch.ones(1, 1), clip=0.2)
    assert found.item() == pytest.approx(loss)
    assert gradient(found, values) == pytest.approx([slope])


def test_value_loss_is_a_mean_over_tokens() -> None:
    # ½(.64 + 2.25)/2, the third token outside; clip around the old values 1 and 1
    values = row(1.5, 0.5, 7.0)
    old, returns = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[2.0, 2.0, 0.0]])
    loss = losses.value_loss(values, old, returns, torch.tensor([[1, 1, 0]]), clip=0.2)
    assert loss.item() == pytest.approx(0.5 * (0.64 + 2.25) / 2)
    assert gradient(loss, values) == pytest.approx([0.0, -0.75, 0.0])


@pytest.mark.parametrize(
    ("advantage", "loss", "slopes"),
    [
        # ratios √e = 1.648721 and 1/√e = .606531; slope of −s·A in log π is −s·A, over two tokens.
        # A = 1: min(1.648721, 1.2) is flat, min(.606531, .8) is not
        (1.0, -(1.2 + 0.606531) / 2, [0.0, -0.606531 / 2]),
        # A = −1: min(−1.648721, −1.2) = −1.648721, min(−.606531, −.8) = −.8 is flat
        (-1.0, (1.648721 + 0.8) / 2, [1.648721 / 2, 0.0]),
    ],
)
def test_ppo_loss_clips_for_both_signs(advantage: float, loss: float, slopes: list[float]) -> None:
    logps = row(-1.0, -2.0, -3.0)
    old, mask = torch.tensor([[-1.5, -1.5, 0.0]]), torch.tensor([[1, 1, 0]])
    found = ppo_loss(logps, old, torch.full((1, 3), advantage), mask, clip=0.2)
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert gradient(found, logps) == pytest.approx([*slopes, 0.0], abs=1e-6)


def test_ppo_loss_inside_the_clip_range() -> None:
    # ratio 1 on both tokens: −mean A = −(2 − 5)/2, slopes −A/2
    logps = row(-1.0, -2.0)
    loss = ppo_loss(logps, logps.detach(), torch.tensor([[2.0, -5.0]]), torch.ones(1, 2))
    assert loss.item() == pytest.approx(1.5)
    assert gradient(loss, logps) == pytest.approx([-1.0, 2.5])


# --- through the model: labels, padding, batches ------------------------------------------------------------------


def test_labels_that_do_not_count_are_no_index() -> None:
    # Class 0 stands in for −100: were it read, its logit (NaN, or out of all proportion) would show.
    labels = torch.tensor([[-100, -100, 3, 1], [-100, -100, -100, -100]])
    logits, targets, mask = shift(torch.zeros(2, 4, 4), labels)
    assert logits.shape == (2, 3, 4) and targets.tolist() == [[0, 3, 1], [0, 0, 0]]
    assert mask.tolist() == [[False, True, True], [False, False, False]]
    for poison in (1e4, -math.inf, math.nan):
        logits = torch.zeros(2, 4, 4)
        logits[0, 0], logits[0, 3], logits[1] = poison, poison, poison
        logits.requires_grad_()
        logps, mask = token_logprobs(logits, labels)
        assert logps.tolist() == [pytest.approx([0, -2 * LN2, -2 * LN2]), [0, 0, 0]]
        losses.nll(logps, mask).backward()
        assert logits.grad is not None
        assert logits.grad[0, 1:3].abs().sum() > 0
        assert not logits.grad[1].any() and not logits.grad[0, [0, 3]].any()


def test_end_of_text_counts_although_it_is_the_pad_token(model: Any) -> None:
    logps, mask = scored(model, ROWS, pad=END)
    assert mask.sum(1).tolist() == [3, 5, 2, 1]
    # the last token of row 0 by hand
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    wanted = model(input_ids=ids).logits[0, -1].log_softmax(-1)[END]
    torch.testing.assert_close(logps[0, 4], wanted)
    other, _ = scored(model, ROWS, pad=15)
    torch.testing.assert_close(other, logps, atol=1e-5, rtol=1e-5)


def npo_of(model: Any, reference: Any, rows: Sequence[Encoded], **padding: Any) -> Tensor:
    logps, mask = scored(model, rows, **padding)
    return npo(logps, mask, scored(reference, rows, **padding)[0], beta=0.3)


def kl_of(model: Any, reference: Any, rows: Sequence[Encoded], **padding: Any) -> Tensor:
    batch = padded(rows, **padding)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    then, _, mask = shift(reference(**inputs).logits.detach(), batch["labels"])
    return masked_mean(kl_divergence(then, shift(model(**inputs).logits, batch["labels"])[0]), mask)


def nll_of(model: Any, reference: Any, rows: Sequence[Encoded], **padding: Any) -> Tensor:
    return losses.nll(*scored(model, rows, **padding))


Through = Callable[..., Tensor]
THROUGH = pytest.mark.parametrize("loss", [nll_of, npo_of, kl_of])


@THROUGH
@pytest.mark.parametrize("padding", [{"side": "left"}, {"more": 5}, {"side": "left", "more": 5}])
def test_padding_changes_neither_loss_nor_gradient(
    model: Any, reference: Any, loss: Through, padding: dict[str, Any]
) -> None:
    plain, padded = loss(model, reference, ROWS), loss(model, reference, ROWS, **padding)
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        weight_gradient(model, padded), weight_gradient(model, plain), atol=2e-5, rtol=1e-4
    )


@THROUGH
def test_a_split_batch_is_the_weighted_mean_of_its_parts(model: Any, reference: Any, loss: Through) -> None:
    parts = [ROWS[:1], ROWS[1:]]
    # NPO is a mean over responses, the others are means over answer tokens
    sizes = [[len(r.response_ids) for r in part] for part in parts]
    weights = [len(s) if loss is npo_of else sum(s) for s in sizes]
    mean = sum(w * loss(model, reference, p) for w, p in zip(weights, parts, strict=True)) / sum(weights)
    whole = loss(model, reference, ROWS)
    torch.testing.assert_close(torch.as_tensor(mean), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss(model, reference, ROWS[::-1]), whole, atol=1e-5, rtol=1e-5)


def test_retain_terms_hold_the_model_where_it_is(model: Any) -> None:
    """At the reference, KL is 0 without a gradient; a step on it brings a moved model back towards the reference."""
    still = kl_of(model, model, ROWS)
    assert still.item() == pytest.approx(0.0, abs=1e-6)
    assert weight_gradient(model, still).abs().max() < 1e-4
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    for term in (kl_of, nll_of):
        before = term(moved, model, ROWS)
        direction = torch.autograd.grad(before, list(moved.parameters()))
        stepped = copy.deepcopy(moved)
        with torch.no_grad():
            for p, g in zip(stepped.parameters(), direction, strict=True):
                p.sub_(1e-3 * g)
            assert before.item() > 0 and term(stepped, model, ROWS) < before


# --- registry -----------------------------------------------------------------------------------------------------


def test_methods_say_what_they_read() -> None:
    tensors = {"logps", "mask", "logits", "labels", "reference_logps", "reference_logits"}
    for name, method in METHODS.items():
        assert registry.find_method(name) is method
        if method.trainer is not None:
            continue  # tests/test_procedures.py
        others = {key.removeprefix("other_") for key in method.reads if key.startswith("other_")}
        assert others | (set(method.reads) - {f"other_{key}" for key in others}) <= tensors
        assert bool(others) == (method.pairs is not None)
        assert method.needs_reference == any("reference" in key for key in method.reads)
    assert METHODS["npo"].needs_reference and not METHODS["finetune"].needs_reference
    assert METHODS["finetune"].walks == "retain"
    assert METHODS["idk_dpo"].needs_reference and not METHODS["jensun"].needs_reference


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no loss 'gradient_asent'.*gradient_ascent"):
        registry.find_method("gradient_asent")


def test_losses_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, name: str, value: Any) -> None:
            self.name, self.value = name, value

        def load(self) -> Any:
            return self.value

    mine = registry.LossMethod(losses.nll)
    entries = [Entry("mine", mine), Entry("npo", mine), Entry("wrong", losses.nll)]
    monkeypatch.setattr(
        "dareu.config.plugins.entry_points", lambda group: entries if group == "dareu.methods" else []
    )
    assert registry.find_method("mine") is mine
    assert registry.find_method("npo") is METHODS["npo"]  # built-in names win
    with pytest.raises(ConfigError, match="'wrong'.*function"):
        registry.find_method("wrong")
    with pytest.raises(ConfigError, match="mine"):
        registry.find_method("mime")
