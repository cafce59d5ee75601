"""The cubic sub-problem on functions whose minimiser is known, and Hessian-vector products of a model."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import (
    FORGET,
    RETAIN,
    Killed,
    encoded,
    killed_after,
    largest_difference,
    mean_nll,
    original,
    weights,
    with_lora,
)
from torch import Tensor

from dareu.config import NewtonConfig
from dareu.errors import TrainingError
from dareu.methods import scurenewton as newton
from dareu.methods.scurenewton import CubicStep, line_minimum, solve_cubic
from dareu.training.common import Work


def solved(g: list[float], hessian: list[list[float]], cubic: float, steps: int) -> CubicStep:
    matrix = torch.tensor(hessian, dtype=torch.float64)
    return solve_cubic(torch.tensor(g, dtype=torch.float64), lambda v: matrix @ v, cubic, steps)


@pytest.mark.parametrize(
    ("g", "h"),
    [
        (-3.0, 1.0),  # −3 + Δ + 2Δ|Δ| = 0 at Δ = 1 for M = 4
        (-1.0, -1.0),  # negative curvature: −1 − Δ + 2Δ|Δ| = 0
        (-2.0, 0.0),  # none at all
    ],
)
def test_one_dimension_takes_one_step(g: float, h: float) -> None:
    found = solved([g], [[h]], 4.0, steps=1)
    assert found.step.item() == pytest.approx(1.0)
    assert found.value == pytest.approx(g + h / 2 + 4 / 6)
    assert found.curvature == pytest.approx(h)
    assert solved([-g], [[h]], 4.0, steps=1).step.item() == pytest.approx(-1.0)


def test_first_step_is_the_cauchy_point() -> None:
    # g = (3, 4), H = diag(2, −1), M = 2: a = gᵀHg/‖g‖² = (18 − 16)/25 = .08, and the length along −g is the root of
    # −5 + .08 R + R² = 0, R = −.04 + √(.0016 + 5) = 2.196426
    found = solved([3.0, 4.0], [[2.0, 0.0], [0.0, -1.0]], 2.0, steps=1)
    length = -0.04 + math.sqrt(0.0016 + 5)
    assert found.step.tolist() == pytest.approx([-0.6 * length, -0.8 * length])


def test_many_steps_find_the_minimiser() -> None:
    # (H + (M/2)‖Δ‖ I) Δ = −g with Δ = (3, 4), ‖Δ‖ = 5, M = 2, H = diag(1, −2): g = −(6·3, 3·4). H + 5I is positive
    # definite, so that Δ is the global minimiser; m = −54 − 48 + ½(9 − 32) + 125/3 = −71.8333
    found = solved([-18.0, -12.0], [[1.0, 0.0], [0.0, -2.0]], 2.0, steps=200)
    assert found.step.tolist() == pytest.approx([3.0, 4.0], abs=1e-6)
    assert found.value == pytest.approx(-102 - 11.5 + 125 / 3)
    assert found.curvature == pytest.approx(-23 / 25)


def test_the_model_never_rises() -> None:
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        half = torch.randn(6, 6, generator=draw, dtype=torch.float64)
        g = (10 ** torch.randn(1, generator=draw, dtype=torch.float64)) * torch.randn(
            6, generator=draw, dtype=torch.float64
        )
        values = [solved(g.tolist(), (half + half.T).tolist(), 3.0, n).value for n in range(6)]
        assert values[0] == 0.0 and values[1] < 0
        assert all(b <= a + 1e-12 for a, b in zip(values, values[1:], strict=False))


def test_a_larger_m_makes_shorter_steps() -> None:
    norms = [float(solved([1.0, 1.0], [[1.0, 0.0], [0.0, 2.0]], m, 20).step.norm()) for m in (0.1, 1.0, 10.0)]
    assert norms == sorted(norms, reverse=True) and norms[-1] < 0.5 * norms[0]


def test_a_step_that_is_not_finite_shows() -> None:
    assert not solved([math.nan, 1.0], [[1.0, 0.0], [0.0, 1.0]], 1.0, 3).step.isfinite().all()
    assert math.isnan(line_minimum(-1.0, math.inf, 0.0, 0.0, 1.0, 1.0))
    assert solved([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], 1.0, 3).step.tolist() == [0.0, 0.0]


# --- of a model ---------------------------------------------------------------------------------------------------


def objective(micro: int) -> tuple[newton.Objective, list[newton.Part]]:
    model, tokenizer = original()
    rows = encoded(tokenizer, RETAIN), encoded(tokenizer, FORGET)
    return newton.Objective(copy.deepcopy(model), tokenizer.pad_token_id, micro), [
        (1.0, rows[0]),
        (-0.5, rows[1]),
    ]


def test_gradient_and_product_do_not_depend_on_micro_batches() -> None:
    whole, parts = objective(10)
    cut, _ = objective(2)
    value, gradient = whole.gradient(parts)
    assert value == pytest.approx(
        mean_nll(original()[0], RETAIN) - 0.5 * mean_nll(original()[0], FORGET), abs=1e-5
    )
    torch.testing.assert_close(cut.gradient(parts)[1], gradient, atol=1e-6, rtol=1e-4)
    v = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        cut.hessian_product(parts)(v), whole.hessian_product(parts)(v), atol=1e-4, rtol=1e-3
    )


def test_product_is_the_slope_of_the_gradient() -> None:
    """Hv ≈ (∇L(θ + hv) − ∇L(θ − hv)) / 2h, through attention, in float64."""
    found, parts = objective(10)
    found.model.double()
    v = torch.randn(
        sum(p.numel() for p in found.parameters), generator=torch.Generator().manual_seed(2)
    ).double()
    v /= v.norm()
    product = found.hessian_product(parts)(v)
    start, h = torch.nn.utils.parameters_to_vector(found.parameters).detach(), 1e-3
    ends: list[Tensor] = []
    for sign in (1, -1):
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(start + sign * h * v, found.parameters)
        ends.append(found.gradient(parts)[1])
    # the log-probabilities are float32 (models/logprobs.py)
    slope = (ends[0] - ends[1]) / (2 * h)
    assert (product - slope).norm() < 0.01 * product.norm() and product.norm() > 0.05


def newton_run(
    folder: Path, policy: Any = None, work: Work | None = None, **changes: Any
) -> tuple[Any, Work]:
    model, tokenizer = original()
    policy = policy or copy.deepcopy(model)
    work = work or Work(folder)
    given = {
        "name": "scurenewton", "cubic": 20.0, "outer_steps": 3, "inner_steps": 4, "forget_weight": 0.5,
        "retain_weight": 1.0, "batch_size": 3, "hessian_batch_size": 2, "micro_batch_size": 2,
    }  # fmt: skip
    newton.newton_steps(
        policy, tokenizer, config=NewtonConfig.model_validate(given | changes), forget=encoded(tokenizer, FORGET),
        retain=encoded(tokenizer, RETAIN), seed=1, work=work,
    )  # fmt: skip
    return policy, work


@pytest.mark.parametrize(("adapter", "cubic"), [(False, 1100.0), (True, 20.0)])
def test_steps_forget_and_keep(tmp_path: Path, adapter: bool, cubic: float) -> None:
    """With steps so short that the model of third order holds, whichever processor trained the original."""
    policy = with_lora(original()[0], dropout=0.1) if adapter else copy.deepcopy(original()[0])
    before, first = weights(policy), (mean_nll(policy, FORGET), mean_nll(policy, RETAIN))
    model, work = newton_run(tmp_path, policy, forget_weight=1.0, outer_steps=4, cubic=cubic)
    assert mean_nll(model, FORGET) > first[0] + 0.05
    assert mean_nll(model, RETAIN) - first[1] < (mean_nll(model, FORGET) - first[0]) / 2
    for row in work.log:
        assert row["model_decrease"] > 0 and row["step_norm"] > 0 and row["grad_norm"] > 0
    for name, weight in weights(model).items():
        assert torch.equal(weight, before[name]) == (adapter and "lora_" not in name), name


def test_a_killed_run_goes_on_after_its_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, work = newton_run(tmp_path / "whole")
    with pytest.raises(Killed):
        newton_run(tmp_path / "cut", work=killed_after(tmp_path / "cut", 2))
    steps: list[int] = []
    solve = newton.solve_cubic
    monkeypatch.setattr(newton, "solve_cubic", lambda *a: steps.append(1) or solve(*a))
    torch.manual_seed(12345)
    model, resumed = newton_run(tmp_path / "cut")
    assert len(steps) == 1
    assert largest_difference(weights(whole), weights(model)) == 0
    assert largest_difference(weights(whole), weights(original()[0])) > 1e-3
    assert resumed.log == work.log and [row["step"] for row in work.log] == [1, 2, 3]


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole, _ = newton_run(tmp_path / "whole")
    with pytest.raises(Killed):
        newton_run(tmp_path / "cut", work=killed_after(tmp_path / "cut", 2))
    newest = tmp_path / "cut" / "checkpoints" / "checkpoint-2"
    (newest / "complete").unlink()
    (newest / "weights.safetensors").write_bytes(b"half")
    model, _ = newton_run(tmp_path / "cut")
    assert largest_difference(weights(whole), weights(model)) == 0


def test_weights_that_are_not_finite_stop_it(tmp_path: Path) -> None:
    policy = copy.deepcopy(original()[0])
    policy.model.norm.weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match="loss is not finite at step 0"):
        newton_run(tmp_path, policy)
    assert not (tmp_path / "checkpoints").exists()


def test_hessian_products_read_as_many_rows_as_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`hessian_batch_size` of the gradient's rows of each set, the first ones."""
    seen: list[list[int]] = []
    product, gradient = newton.Objective.hessian_product, newton.Objective.gradient

    def spy(name: str, real: Any) -> Any:
        return lambda self, parts: (seen.append([len(rows) for _, rows in parts]), real(self, parts))[1]

    monkeypatch.setattr(newton.Objective, "hessian_product", spy("product", product))
    monkeypatch.setattr(newton.Objective, "gradient", spy("gradient", gradient))
    model, tokenizer = original()
    config = NewtonConfig(
        name="x", outer_steps=1, inner_steps=1, batch_size=3, hessian_batch_size=2, forget_weight=1.0
    )
    newton.newton_steps(
        copy.deepcopy(model), tokenizer, config=config, forget=encoded(tokenizer, FORGET),
        retain=encoded(tokenizer, RETAIN), seed=1, work=Work(tmp_path),
    )  # fmt: skip
    assert seen == [[3, 3], [2, 2]]
