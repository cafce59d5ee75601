"""The mathematics of methods that are more than one loss: RMU, PDU, SCRUB, task vectors. Pure functions.

Masks are (B, T) and come from the labels: a position counts where its label does. Every function that returns a scalar
to be minimised is a mean over the positions that count, 0 where none does; what the others hold is never read.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dareu.models.logprobs import kl_divergence


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(values.numel(), 1)


def squared_distance(activations: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over tokens and dimensions of (a − target)² (RMU; Li et al. 2024, arXiv 2403.03218, eq. 1 and 2). ≥ 0.

    `activations` (B, T, d), `target` (d) or (B, T, d), `mask` (B, T). The paper sums over dimensions; the authors' code
    takes their mean, to which its weights belong, and so does this.
    """
    counts = mask.bool()
    wanted = target if target.dim() == 1 else target[counts]
    return _mean(((activations[counts].float() - wanted.float()) ** 2).mean(-1))


def random_direction(size: int, seed: int) -> Tensor:
    """A unit vector (size,) of uniform random numbers in [0, 1), the same for the same seed on every machine (RMU)."""
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def layer_index(layer: int | float, layers: int) -> int:
    """The index of the block that `layer` means, of `layers` blocks: a whole number counts from 0 (negative: from the
    end), a fraction of depth f means the block that ends there, ⌈f · layers⌉ − 1. `IndexError` where there is none.

    .25 is block 7 of 32, which the paper takes, and block 0 of 4.
    """
    if isinstance(layer, int):
        index = layer + layers if layer < 0 else layer
    else:
        index = max(math.ceil(layer * layers), 1) - 1
    if not 0 <= index < layers:
        raise IndexError(layer)
    return index


def logit_margin(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over answer tokens of (max logit − mean logit)² (PDU; Entesari et al. 2025, arXiv 2506.05314). ≥ 0.

    `logits` (B, T, V) and `mask` (B, T) as `models.logprobs.shift` gives them: both shifted. 0 where the distribution
    is uniform.
    """
    counting = logits[mask.bool()].float()
    return _mean((counting.amax(-1) - counting.mean(-1)) ** 2)


def dual_ascent(dual: float, retain_loss: float, epsilon: float, step_size: float) -> float:
    """α ← max(0, α + η · (L_retain − ε)): one step of projected gradient ascent on the dual of L_retain ≤ ε (PDU)."""
    return max(0.0, dual + step_size * (retain_loss - epsilon))


def divergence(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over answer tokens of KL(ref ‖ θ), nats a token (SCRUB; Kurmanji et al. 2023, arXiv 2302.09880, eq. 1). ≥ 0.

    Both logits (B, T, V) and `mask` (B, T) are shifted.
    """
    counts = mask.bool()
    return _mean(kl_divergence(reference_logits[counts], logits[counts]))


def divergence_ascent(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    """−KL(ref ‖ θ): SCRUB's step on forget answers. Unbounded below."""
    return -divergence(logits, reference_logits, mask)


def scrub_place(step: int, forget_steps: int, retain_steps: int, max_epochs: int) -> tuple[bool, int]:
    """(whether step `step` is a max step, how many steps of its kind came before it).

    An epoch is a pass over the forget set (max steps; in the first `max_epochs` epochs alone) and then one over the
    retain set (min steps).
    """
    both = forget_steps + retain_steps
    epoch, within = divmod(step, both)
    if epoch >= max_epochs:
        return False, step - max_epochs * forget_steps
    if within < forget_steps:
        return True, epoch * forget_steps + within
    return False, epoch * retain_steps + within - forget_steps


def scrub_length(epochs: float, forget_steps: int, retain_steps: int, max_epochs: int) -> int:
    """Steps of a SCRUB run: `epochs` passes over retain rows, the first `max_epochs` after one over forget rows."""
    return math.ceil(epochs * retain_steps) + min(max_epochs, math.ceil(epochs)) * forget_steps


def negate(original: Tensor, tuned: Tensor, scale: float) -> Tensor:
    """θ_orig − s · (θ_tuned − θ_orig): the task vector, subtracted (Ilharco et al. 2023, arXiv 2212.04089)."""
    return original - scale * (tuned - original)
