"""JensUn: Jensen–Shannon divergence to a refusal on the forget set, to the original on the retain set (Singh et al.
2025, arXiv 2509.02820).

Where we depart: the authors' code, since March 2026, asks for a short refusal's tokens in turn at the places of the
gold answer, after the gold answer's own tokens (`params.positions: gold`). The default asks for each token after the
refusal so far, which is what the model then writes.
"""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from dareu.config import Strict
from dareu.methods.loss_method import LossMethod
from dareu.models.logprobs import IGNORE, response_logprobs
from dareu.training.loss_trainer import LossTrainer


class JensUnSettings(Strict):
    """Where a refusal's tokens are asked for: along the refusal itself, or at the places of the gold answer."""

    positions: Literal["refusal", "gold"] = Field("refusal")


def cyclic_labels(labels: Tensor, refusals: list[list[int]]) -> Tensor:
    """`labels` (B, T) whose counted entries are a refusal's tokens, in turn and over again. Others stay `IGNORE`."""
    cycled = labels.clone()
    for row, tokens in zip(cycled, refusals, strict=True):
        places = (row != IGNORE).nonzero().squeeze(1)
        turns = torch.arange(len(places), device=labels.device) % len(tokens)
        row[places] = torch.tensor(tokens, device=labels.device)[turns]
    return cycled


class JensUnTrainer(LossTrainer):
    """With `positions: gold` the refusal's tokens, without its end, are labels of the gold answer's row."""

    def _count(self, batch: dict[str, Tensor]) -> float:
        gold = self.settings.positions == "gold"
        return int((batch["labels"] != IGNORE).sum()) if gold else super()._count(batch)

    def _read(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.settings.positions == "refusal":
            return super()._read(model, inputs)
        tokens = [row.response_ids[:-1] or row.response_ids for row in self._others(inputs)]
        logps, mask = response_logprobs(model, inputs | {"labels": cyclic_labels(inputs["labels"], tokens)})
        return {"other_logps": logps, "other_mask": mask}


def jensun(other_logps: Tensor, other_mask: Tensor) -> Tensor:
    """Mean over a refusal's tokens of JSD(one-hot of the token ‖ π). In [0, ln 2].

    Of a one-hot distribution the divergence depends on the token's probability p alone:
    ln 2 + ½ (p ln p − (1 + p) ln(1 + p)). Its slope in log p is ½ p ln(p/(1 + p)), bounded.
    """
    p = other_logps.exp()
    divergence = math.log(2) + 0.5 * (p * other_logps - (1 + p) * p.log1p())
    return (divergence * other_mask).sum() / other_mask.sum().clamp(min=1)


METHOD = LossMethod(
    jensun,
    reads=("other_logps", "other_mask"),
    pairs="refusal",
    trainer=JensUnTrainer,
    settings=JensUnSettings,
    mean_over="other_tokens",
)
