"""Held-out early stopping: rules over what a monitor says about a batch of rollouts, and their state."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

from dareu.config import StopConfig
from dareu.runs import ranks
from dareu.training.tensors import save_tensors

BROKEN = ("empty", "repetitive", "unfinished", "nobody")


class Monitor(Protocol):
    """What early stopping looks at: numbers about the text of a batch of rollouts."""

    def __call__(
        self, texts: Sequence[str], finished: Sequence[bool], owners: Sequence[str], queries: Sequence[str]
    ) -> dict[str, float]:
        """`attribution` by the stopping attributor, `empty`, `repetitive`, `unfinished`, each a share.

        Without `attribution` no goal is ever reached.
        """


class StopTraining(Exception):
    """Raised at a batch boundary once a stopping rule holds."""

    def __init__(self, reason: str, restore: bool) -> None:
        self.reason, self.restore = reason, restore
        super().__init__(reason)


class StopRules:
    """`stop` applied batch by batch. The first batch shows how much broken text the original model writes."""

    def __init__(self, stop: StopConfig) -> None:
        self.stop = stop
        self.base_unhealthy: float | None = None
        self.strikes = 0

    def check_health(self, numbers: dict[str, float]) -> None:
        """`StopTraining`, weights to be restored, where broken text grew by more than `stop.unhealthy`."""
        unhealthy = max(numbers.get(name, 0.0) for name in BROKEN)
        if self.base_unhealthy is None:
            self.base_unhealthy = unhealthy
        if self.stop.unhealthy is not None and unhealthy > self.base_unhealthy + self.stop.unhealthy:
            raise StopTraining(f"{unhealthy:.0%} of the rollouts are broken text", restore=True)

    def check_goal(self, numbers: dict[str, float]) -> None:
        """`StopTraining`, weights to be kept, where enough is forgotten or the policy has moved too far."""
        # A name in place of a number is resolved by the pipeline, which knows the data.
        level = self.stop.attribution
        reached = isinstance(level, float) and numbers.get("attribution", 1.0) <= level
        self.strikes = self.strikes + 1 if reached else 0
        if self.strikes >= self.stop.patience:
            raise StopTraining(
                f"held-out attribution of the rollouts is {numbers['attribution']:.3f}", restore=False
            )
        if self.stop.kl is not None and numbers["kl"] > self.stop.kl:
            raise StopTraining(f"KL to the original is {numbers['kl']:.3f} nats a token", restore=False)

    def save(self, folder: Path) -> None:
        base = float("nan") if self.base_unhealthy is None else self.base_unhealthy
        save_tensors(folder / "stop.safetensors", {"stop": torch.tensor([base, float(self.strikes)])})

    def restore(self, folder: Path) -> None:
        base, strikes = load_file(folder / "stop.safetensors")["stop"].tolist()
        self.base_unhealthy = None if math.isnan(base) else base
        self.strikes = int(strikes)


class GoodWeights:
    """The trainable weights of the last batch boundary whose rollouts were whole, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, policy: Any) -> None:
        """Write them, in process 0; the file holds the old weights or the new ones, never a part."""
        if ranks.is_main():
            trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
            save_tensors(self.path, trained)

    @torch.no_grad()
    def restore(self, policy: Any) -> bool:
        """Put them back, in all processes; False where none were kept."""
        if not ranks.on_main(self.path.is_file):
            return False
        parameters = dict(policy.named_parameters())
        for name, kept in load_file(self.path).items():
            parameters[name].copy_(kept)
        return True
