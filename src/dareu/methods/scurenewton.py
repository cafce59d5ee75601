"""Cubic-regularised stochastic Newton steps with Hessian-vector products, in the manner of CuReNUS / SCureNewton.

Bui, Lu, Sim, Ng, Low: "How to Cure Newton for Unlearning Neural Networks?", ICLR 2026 (preprint: arXiv 2406.14507).
What is simplified stands in docs/methods/. State of a run: the weights after each outer step; batches are a function
of seed and step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dareu.config import NewtonConfig
from dareu.data.render import Encoded
from dareu.errors import ModelError, first_line
from dareu.methods.base import Method, MethodContext
from dareu.models.logprobs import to_batch, token_logprobs
from dareu.models.processes import sum_over_processes
from dareu.models.progress import track
from dareu.runs import ranks
from dareu.runs.checkpoints import mark_complete, resume_point
from dareu.runs.files import read_json, write_json
from dareu.training import losses
from dareu.training.common import Work, non_finite
from dareu.training.samplers import RetainSampler
from dareu.training.tensors import save_tensors


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


Part = tuple[float, Sequence[Encoded]]  # weight of a mean NLL, and the rows that it is the mean over


class Objective:
    """Σ weight · NLL(rows), NLL the mean over the rows' answer tokens, as a function of the trainable parameters."""

    def __init__(self, model: Any, pad_id: int, micro_batch_size: int) -> None:
        self.model, self.pad_id, self.micro = model, pad_id, micro_batch_size
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def _slices(self, parts: Sequence[Part]) -> list[tuple[float, list[Encoded]]]:
        """This process's micro-batches, each with the weight of its own mean in the whole objective."""
        slices = []
        for weight, rows in parts:
            tokens = sum(len(row.response_ids) for row in rows)
            for start in range(0, len(rows), self.micro):
                some = list(rows[start : start + self.micro])
                slices.append((weight * sum(len(row.response_ids) for row in some) / tokens, some))
        return slices[ranks.rank() :: ranks.world_size()]

    def _nll(self, rows: Sequence[Encoded]) -> Tensor:
        batch = to_batch(rows, self.pad_id, self.parameters[0].device)
        logits = self.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
        return losses.nll(*token_logprobs(logits, batch["labels"]))

    def gradient(self, parts: Sequence[Part]) -> tuple[float, Tensor]:
        """Value and gradient (n,)."""
        value, total = 0.0, torch.zeros_like(parameters_to_vector(self.parameters))
        for weight, rows in self._slices(parts):
            loss = weight * self._nll(rows)
            value += float(loss.detach())
            total += _flat(torch.autograd.grad(loss, self.parameters))
        value = float(sum_over_processes(torch.tensor(value, dtype=torch.float64)))
        return value, sum_over_processes(total)

    def hessian_product(self, parts: Sequence[Part]) -> Callable[[Tensor], Tensor]:
        """v (n,) → Hv (n,): the gradient of (gradient · v), twice backwards through each micro-batch."""

        def product(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            # The fused attention kernels have no second derivative, the plain one has.
            with sdpa_kernel(SDPBackend.MATH):
                for weight, rows in self._slices(parts):
                    first = torch.autograd.grad(weight * self._nll(rows), self.parameters, create_graph=True)
                    total += _flat(torch.autograd.grad(_flat(first) @ vector, self.parameters))
            return sum_over_processes(total)

        return product


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def newton_steps(
    model: Any,
    tokenizer: Any,
    *,
    config: NewtonConfig,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    seed: int = 0,
    work: Work,
) -> None:
    """θ ← θ + Δ, `outer_steps` times, in place; continues after the last finished step in `work`.

    Raises:
        TrainingError: A loss or a weight is not finite.
        ModelError: The model has no second derivative.
    """
    model.eval()  # dropout would give every product another Hessian
    objective = Objective(model, tokenizer.pad_token_id, config.micro_batch_size)
    walks = [
        (weight, RetainSampler(rows, min(config.batch_size, len(rows)), seed))
        for weight, rows in ((config.retain_weight, retain), (-config.forget_weight, forget))
        if weight
    ]
    done = _restore(objective.parameters, work)
    for step in track(range(done, config.outer_steps), work.progress):
        parts = [(weight, walk.batch(step)) for weight, walk in walks]
        value, gradient = objective.gradient(parts)
        some = [(weight, rows[: config.hessian_batch_size]) for weight, rows in parts]
        try:
            solution = solve_cubic(
                gradient, objective.hessian_product(some), config.cubic, config.inner_steps
            )
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            raise ModelError(
                f"The model's attention has no second derivative: {first_line(error)}.",
                "Set model.attn_implementation=eager.",
            ) from error
        if not solution.step.isfinite().all() or value != value:
            raise non_finite(step)
        with torch.no_grad():
            moved = parameters_to_vector(objective.parameters) + solution.step
            vector_to_parameters(moved, objective.parameters)
        work.log.append(
            {
                "step": step + 1,
                "loss": value,
                "grad_norm": float(gradient.norm()),
                "step_norm": float(solution.step.norm()),
                "model_decrease": -solution.value,
                "curvature": solution.curvature,
            }
        )
        _save(objective.parameters, step + 1, work)


def _save(parameters: Sequence[Tensor], step: int, work: Work) -> None:
    """Weights and log after a step; whole once the marker is there."""
    folder = work.checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    if ranks.is_main():
        save_tensors(folder / "weights.safetensors", {str(i): p for i, p in enumerate(parameters)})
        write_json(folder / "log.json", work.log)
    mark_complete(folder)
    work.tick()


def _restore(parameters: Sequence[Tensor], work: Work) -> int:
    """Put back the newest whole checkpoint; how many steps it stands for."""
    folder = resume_point(work.checkpoints)
    if folder is None:
        return 0
    tensors = load_file(folder / "weights.safetensors")
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            parameter.copy_(tensors[str(i)])
    work.log[:] = read_json(folder / "log.json")
    return int(folder.name.split("-")[1])


class SCureNewton(Method):
    """Configured by `NewtonConfig`."""

    def run(self, context: MethodContext) -> dict[str, Any]:
        config = context.config
        assert isinstance(config.method, NewtonConfig)
        newton_steps(
            context.policy,
            context.tokenizer,
            config=config.method,
            forget=context.encode(context.split.forget),
            retain=context.encode(context.split.retain),
            seed=config.seed,
            work=context.work,
        )
        return {"steps": config.method.outer_steps, "stopped": None}


METHOD = SCureNewton()
