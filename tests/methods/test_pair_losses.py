"""SimNPO, and losses with a second response (IDK, DPO, JensUn, FLAT): values and gradients by hand."""

from __future__ import annotations

import math

import pytest
import torch
from loss_fixture import HALVES, LN2, QUARTERS, gradient, row

from dareu.data.render import Encoded
from dareu.methods.flat import flat
from dareu.methods.idk_dpo import dpo
from dareu.methods.idk_sft import refusal_nll
from dareu.methods.jensun import cyclic_labels, jensun
from dareu.methods.npo import npo
from dareu.methods.simnpo import simnpo
from dareu.training.losses import js_divergence
from dareu.training.samplers import PairSampler

MASK = torch.tensor([[1, 1, 0]])


# --- SimNPO -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delta", "value", "slope"),
    [
        # nll/|y| = (1 + 3)/2 · ln 2, β = 2: −ln σ(4 ln 2) = ln 17/16; slope 2(1 − 16/17)/|y|
        (0.0, math.log(17 / 16), 1 / 17),
        (2 * LN2, LN2, 0.5),  # σ(0) = ½
    ],
)
def test_simnpo(delta: float, value: float, slope: float) -> None:
    logps = row(-LN2, -3 * LN2, -9.0)
    loss = simnpo(logps, MASK, beta=2.0, delta=delta)
    assert loss.item() == pytest.approx(value)
    assert gradient(loss, logps) == pytest.approx([slope, slope, 0])


def test_simnpo_is_a_mean_over_responses_each_by_its_own_length() -> None:
    # per token 2 ln 2 and ln 2: (ln 17/16 + ln(1 + ¼))/2 at β = 2
    logps, mask = torch.tensor([[-LN2, -3 * LN2], [-LN2, -9.0]]), torch.tensor([[1, 1], [1, 0]])
    assert simnpo(logps, mask, beta=2.0).item() == pytest.approx((math.log(17 / 16) + math.log(1.25)) / 2)


# --- refusals and alternates --------------------------------------------------------------------------------------


def test_refusal_nll() -> None:
    other = row(-LN2, -2 * LN2, -5.0)
    loss = refusal_nll(other, MASK)
    assert loss.item() == pytest.approx(1.5 * LN2)
    assert gradient(loss, other) == [-0.5, -0.5, 0]


def test_dpo() -> None:
    # log ratios: gold (−1 + 2) + 0 = 1, other (−1 + 2) + (−3 + 2.5) = ½. β = 1: −2 ln σ(−½) = 2 ln(1 + e^½) = 1.948154;
    # slope 2σ(½) = 1.244919 for each gold token, its negative for each of the other's. What is masked has none.
    gold, other = row(-1.0, -0.5, -3.0), row(-1.0, -3.0, -8.0)
    loss = dpo(
        gold, MASK, torch.tensor([[-2.0, -0.5, -9.0]]), other, MASK, torch.tensor([[-2.0, -2.5, -1.0]]), beta=1.0
    )  # fmt: skip
    assert loss.item() == pytest.approx(1.948154, abs=1e-5)
    push = 1.244919
    assert gradient(loss, gold, other) == pytest.approx([push, push, 0, -push, -push, 0], abs=1e-5)


def test_dpo_at_the_reference_and_without_a_preference() -> None:
    gold, other = row(-1.0, -0.5), row(-1.0, -3.0)
    mask = torch.ones(1, 2)
    still = dpo(gold, mask, gold.detach(), other, mask, other.detach(), beta=0.1)
    assert still.item() == pytest.approx(20 * LN2)
    then = torch.tensor([[-2.0, -0.1]])
    torch.testing.assert_close(
        dpo(gold, mask, then, other, 0 * mask, other.detach(), beta=0.3), npo(gold, mask, then, beta=0.3)
    )


def test_other_responses_take_turns() -> None:
    rows = [[Encoded([r], [c]) for c in range(5)] for r in range(3)]
    sampler = PairSampler(rows, seed=7)
    walk = [sampler.batch([0, 1, 2], epoch) for epoch in range(10)]
    for row_number in range(3):
        taken = [batch[row_number] for batch in walk]
        assert all(other.prompt_ids == [row_number] for other in taken)
        assert sorted(other.response_ids[0] for other in taken[:5]) == [
            0,
            1,
            2,
            3,
            4,
        ]  # each once in five epochs
        assert taken[5:] == taken[:5]
    assert len({tuple(walk[e][r].response_ids[0] for e in range(5)) for r in range(3)}) > 1  # rows differ
    again = PairSampler(rows, seed=7)
    assert again.batch([2, 0], 4) == [walk[4][2], walk[4][0]]  # nothing but seed, row and epoch counts
    assert [PairSampler(rows, seed=8).batch([0, 1, 2], e) for e in range(5)] != walk[:5]
    with pytest.raises(ValueError, match="no other response"):
        PairSampler([rows[0], []], seed=7)


# --- Jensen–Shannon -----------------------------------------------------------------------------------------------


def test_js_divergence() -> None:
    # p = (½, ½), q = (¼, ¾), m = (⅜, ⅝): ½[½ ln 4/3 + ½ ln 4/5] + ½[¼ ln 2/3 + ¾ ln 6/5] = .033822
    p, q = torch.tensor(HALVES), torch.tensor(QUARTERS, requires_grad=True)
    found = js_divergence(p, q)
    assert found.item() == pytest.approx(0.033822, abs=1e-6)
    assert js_divergence(q, p).item() == pytest.approx(found.item())
    # slope ½ q_j (ln q_j/m_j − Σ q ln q/m): ½·¼·(−.405465 − .035375), and its negative
    assert gradient(found, q) == pytest.approx([-0.055105, 0.055105], abs=1e-6)
    assert js_divergence(p, p + 3.0).item() == pytest.approx(0.0, abs=1e-7)


def test_js_divergence_is_bounded_where_nothing_is_shared() -> None:
    apart = torch.tensor([300.0, 0.0], requires_grad=True)
    found = js_divergence(torch.tensor([0.0, 300.0]), apart)
    assert found.item() == pytest.approx(LN2)
    assert all(math.isfinite(slope) for slope in gradient(found, apart))


def test_jensun() -> None:
    # p = ½ by the definition: m = (¾, ¼), ½ ln 4/3 + ½(½ ln ⅔ + ½ ln 2) = .215762. p = ¼: m = (⅝, ⅜),
    # ½ ln 8/5 + ½(¼ ln ⅖ + ¾ ln 2) = .380396. Slope in ln p ½ p ln(p/(1 + p)) over two tokens: ¼·ln ⅓/2, ⅛·ln ⅕/2
    logps = row(-LN2, -2 * LN2, -5.0)
    loss = jensun(logps, MASK)
    assert loss.item() == pytest.approx((0.215762 + 0.380396) / 2, abs=1e-6)
    assert gradient(loss, logps) == pytest.approx([-0.137327, -0.100590, 0], abs=1e-6)


@pytest.mark.parametrize(("logp", "value"), [(0.0, 0.0), (-200.0, LN2)])
def test_jensun_between_its_ends(logp: float, value: float) -> None:
    logps = row(logp)
    loss = jensun(logps, torch.ones(1, 1))
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert math.isfinite(gradient(loss, logps)[0])


def test_jensun_is_the_divergence_over_the_whole_vocabulary() -> None:
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6)
    peaked = torch.full_like(logits, -1e4).scatter(1, labels.unsqueeze(1), 0.0)
    logps = logits.log_softmax(1).gather(1, labels.unsqueeze(1)).T
    whole = js_divergence(peaked, logits).mean().item()
    assert jensun(logps, torch.ones(1, 6)).item() == pytest.approx(whole, abs=1e-6)


# --- FLAT ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("divergence", "value", "forget", "template"),
    [
        # Forget tokens of probability ½ and 1: P_f = ¾; template tokens of ½ and ¼: P_e = ⅜. Slopes in ln p_t are those
        # in P times p_t/2.
        # ½(tanh ¾ − tanh ⅜) = ½(.635149 − .358357); ½(1 − tanh²): ½·.596586 and ½·.871580
        ("tv", 0.138396, [0.0745733, 0.1491465], [-0.1089475, -0.0544738]),
        # e^−¼ − ⅜; e^−¼ = .778801 and 1
        ("kl", 0.403801, [0.194700, 0.389400], [-0.25, -0.125]),
        # (ln(1 + e^¾) − ln 2) − (ln 2 − ln(1 + e^−⅜)) = .443724 − .170024; σ(¾) = .679179 and σ(−⅜) = .407333
        ("js", 0.273700, [0.169795, 0.339589], [-0.101833, -0.0509167]),
        # 9/64 + ¾ − ⅜; ⅜ + 1 and 1
        ("pearson", 0.515625, [0.34375, 0.6875], [-0.25, -0.125]),
    ],
)
def test_flat(divergence: str, value: float, forget: list[float], template: list[float]) -> None:
    logps, other = row(-LN2, 0.0, -3.0), row(-LN2, -2 * LN2, -3.0)
    loss = flat(logps, MASK, other, MASK, divergence)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(value, abs=1e-5)
    assert gradient(loss, logps, other) == pytest.approx([*forget, 0, *template, 0], abs=1e-5)


# f of each divergence D_f = Σ q f(p/q), f(1) = 0 (Nowozin et al. 2016, table 1; of total variation, ½|t − 1|).
GENERATORS = {
    "kl": lambda t: t * t.log(),
    "js": lambda t: t * t.log() - (t + 1) * ((t + 1) / 2).log(),
    "pearson": lambda t: (t - 1) ** 2,
    "tv": lambda t: 0.5 * (t - 1).abs(),
}


@pytest.mark.parametrize("divergence", sorted(GENERATORS))
@pytest.mark.parametrize("probability", [0.05, 0.5, 0.95])
def test_flat_takes_the_convex_conjugate(divergence: str, probability: float) -> None:
    """With the same probability in both places the loss is f*(u) − u, where u = g*(P) and f*(u) = sup_t u·t − f(t)."""
    gain = {
        "tv": math.tanh(probability) / 2, "kl": probability, "pearson": probability,
        "js": math.log(2 / (1 + math.exp(-probability))),
    }[divergence]  # fmt: skip
    t = torch.linspace(1e-6, 20, 2_000_001, dtype=torch.float64)
    conjugate = (gain * t - GENERATORS[divergence](t)).max().item()
    logps = torch.tensor([[math.log(probability)]])
    found = flat(logps, torch.ones(1, 1), logps, torch.ones(1, 1), divergence)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(conjugate - gain, abs=1e-5)


def test_refusal_tokens_in_turn_at_the_places_of_the_answer() -> None:
    """Three and two answer tokens, refusals of two and of three; prompt and padding stay as they are."""
    ignore = -100
    labels = torch.tensor([[ignore, 5, 6, 7, ignore], [ignore, ignore, 8, 9, ignore]])
    found = cyclic_labels(labels, [[1, 2], [3, 4, 5]])
    assert found.tolist() == [[ignore, 1, 2, 1, ignore], [ignore, ignore, 3, 4, ignore]]
    assert labels[0, 1] == 5
