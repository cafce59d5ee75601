"""SHRED: self-distillation, the gold token demoted where the model was least sure (Hu et al. 2026, arXiv 2605.07482).

    D_y = the ⌈P·T⌉ tokens of the answer y that the original finds least likely
    t   = π_N( · | q, y_<t), its gold token at `demoted` and the rest rescaled, for t ∈ D_y;   π_N itself elsewhere
    L   = mean_t KL( top-K of t ‖ π )

No retain set: the tokens outside of D_y hold the model where it is. What the paper leaves open to us is said in
docs/methods/shred.md.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dareu.config import Share, Strict, TopK
from dareu.methods.base import MethodContext
from dareu.methods.distillation import READS, Distillation
from dareu.training.losses import SoftTargets, divergence_from_targets, keep_top


class ShredSettings(Strict):
    """`select`: P, the share of an answer's tokens that are demoted; `demoted`: probability that the gold token keeps
    there; `top_k`: tokens of each distribution that are kept; `skip`: tokens at the answer's start that are never
    demoted.
    """

    select: Annotated[float, Field(gt=0, le=1)] = 0.15
    demoted: Share = 0.01
    top_k: TopK = 256
    skip: Annotated[int, Field(ge=0)] = 0


def demoted_targets(probs: Tensor, gold: Tensor, select: float, demoted: float, skip: int = 0) -> Tensor:
    """SHRED's targets (T, V) from the original's distributions `probs` (T, V) and the answer's tokens `gold` (T,).

    Of the tokens from `skip` on, ⌈select · T⌉ of the least likely gold ones get probability min(p, demoted) and the
    rest is rescaled to fill up 1; a token that is certain leaves the rest uniform.
    """
    count = min(math.ceil(select * len(gold)), max(len(gold) - skip, 0))
    places = torch.arange(len(gold))
    likely = probs[places, gold].clone()
    likely[:skip] = torch.inf
    chosen = likely.argsort(stable=True)[:count]
    targets = probs.clone()
    targets[chosen, gold[chosen]] = 0.0
    rest = targets[chosen].sum(-1, keepdim=True)
    kept = probs[chosen, gold[chosen]].clamp(max=demoted).unsqueeze(1)
    uniform = torch.full_like(targets[chosen], 1.0 / max(probs.size(-1) - 1, 1))
    uniform[torch.arange(len(chosen)), gold[chosen]] = 0.0
    spread = torch.where(rest > 1e-12, targets[chosen] / rest.clamp(min=1e-12), uniform)
    targets[chosen] = spread * (1 - kept)
    targets[chosen, gold[chosen]] = kept.squeeze(1)
    return targets


@dataclass(frozen=True)
class Shred(Distillation):
    """Targets from the forget answers alone."""

    def teachers(self, context: MethodContext, settings: ShredSettings) -> list[SoftTargets]:
        from dareu.models.counterfactual import distributions

        config = context.config
        rows = context.encode(context.split.forget)
        original = distributions(context.policy, context.tokenizer, rows, config.evaluation.batch_size)
        return [
            keep_top(
                demoted_targets(
                    probs, torch.tensor(row.response_ids), settings.select, settings.demoted, settings.skip
                ),
                settings.top_k,
            )
            for row, probs in zip(rows, original, strict=True)
        ]


METHOD = Shred(divergence_from_targets, reads=READS, settings=ShredSettings)
