"""Muon for the matrices of a model and AdamW for its other weights, as one optimizer."""

from typing import Any

from torch.optim import AdamW, Muon, Optimizer

from dareu.errors import ConfigError
from dareu.models.layers import matrices_and_others

REST = 1 / 3  # AdamW's learning rate as a share of Muon's
MOMENTUM = 0.8  # of Muon: with the usual .95 short runs lose more of what should stay (docs/dev/log.md)


class MuonWithAdamW(Optimizer):
    """Muon moves a matrix along its momentum with all singular values set to 1, so that a step changes all directions
    alike (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/); `torch.optim.Muon`, with steps of AdamW's
    length (Liu et al. 2025, arXiv 2502.16982). Embeddings, output head and vectors are AdamW's.

    Args:
        model: Its trainable parameters are taken.
        lr: Of the matrices; the other weights have `REST` of it.
        weight_decay: Of all but vectors.
        adam_beta2: Decay of AdamW's second moment.

    Raises:
        ConfigError: The model has no trainable matrix.
    """

    def __init__(self, model: Any, lr: float, weight_decay: float = 0.0, adam_beta2: float = 0.999) -> None:
        matrices, others = matrices_and_others(model)
        if not matrices:
            raise ConfigError(
                "Muon trains matrices, and none of the model's is trained.", "Set optim.name=adamw."
            )
        muon = Muon(
            matrices, lr=lr, weight_decay=weight_decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
        )
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        adam = AdamW(groups, lr=lr * REST, betas=(0.9, adam_beta2))
        self.parts: list[Optimizer] = [muon, adam]
        super().__init__([*muon.param_groups, *adam.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The parts read and write this optimizer's groups and state, which schedules change and checkpoints keep."""
        muon, adam = self.parts
        muon.param_groups, adam.param_groups = self.param_groups[:1], self.param_groups[1:]
        muon.state = adam.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()
