"""The cubic sub-problem of a regularised Newton step, solved with Hessian-vector products alone. Pure.

    minimise over Δ:  m(Δ) = gᵀΔ + ½ ΔᵀHΔ + (M/6) ‖Δ‖³                 (Nesterov & Polyak 2006)

Steepest descent from Δ = 0 with an exact line search, one product with H a step. Its first step is the Cauchy point.
Left out: the random perturbation by which Tripuraneni et al. (2018, algorithm 2) leave a saddle of m, and their fixed
step length 1/(20ℓ), which wants a bound ℓ on the Hessian that is not known for a language model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class CubicStep:
    """`step` Δ, the shape of g; `value` m(Δ) ≤ 0; `curvature` ΔᵀHΔ / ‖Δ‖², 0 for Δ = 0."""

    step: Tensor
    value: float
    curvature: float


def solve_cubic(
    gradient: Tensor, hessian_product: Callable[[Tensor], Tensor], cubic: float, steps: int
) -> CubicStep:
    """Descend m from 0 in `steps` steps. `gradient` (n,); `hessian_product` maps (n,) to (n,); `cubic` is M > 0.

    m never rises from one step to the next. What is not finite in g or H makes a step that is not finite.
    """
    step, product = torch.zeros_like(gradient), torch.zeros_like(gradient)  # Δ and HΔ
    for _ in range(steps):
        slope = gradient + product + (cubic / 2) * step.norm() * step  # ∇m
        if float(slope.norm()) <= 1e-12 * max(1.0, float(gradient.norm())):
            break
        direction = -slope
        bent = hessian_product(direction)
        length = line_minimum(
            float(gradient @ direction + product @ direction),
            float(bent @ direction),
            float(step @ step),
            float(step @ direction),
            float(direction @ direction),
            cubic,
        )
        step, product = step + length * direction, product + length * bent
    norm = float(step.norm())
    value = float(gradient @ step) + 0.5 * float(step @ product) + cubic / 6 * norm**3
    return CubicStep(step, value, float(step @ product) / norm**2 if norm else 0.0)


def line_minimum(slope: float, bend: float, ss: float, sd: float, dd: float, cubic: float) -> float:
    """The t ≥ 0 where φ(t) = m(Δ + t·d) is smallest.

    φ(t) − φ(0) = t·slope + ½t²·bend + (M/6)·(‖Δ + t·d‖³ − ‖Δ‖³), with `slope` gᵀd + ΔᵀHd, `bend` dᵀHd, `ss` ΔᵀΔ,
    `sd` Δᵀd, `dd` dᵀd > 0. φ′ = 0 squared is a quartic, whose roots are tried. NaN where a number is not finite.
    """
    if not all(map(math.isfinite, (slope, bend, ss, sd, dd))):
        return math.nan
    unit = math.sqrt(dd)  # in arc length, so that the quartic is well scaled
    slope, bend, sd = slope / unit, bend / dd, sd / unit

    def phi(t: float) -> float:
        norm = math.sqrt(max(ss + 2 * t * sd + t * t, 0.0))
        return t * slope + t * t * bend / 2 + cubic / 6 * (norm**3 - ss**1.5)

    # (slope + t·bend)² = (M²/4) · (ss + 2·sd·t + t²) · (sd + t)²
    right = cubic**2 / 4 * np.polymul([1.0, 2 * sd, ss], np.polymul([1.0, sd], [1.0, sd]))
    roots = np.roots(np.polysub(right, np.polymul([bend, slope], [bend, slope])))
    return min([0.0, *(float(r.real) for r in roots if r.real > 0)], key=phi) / unit
