"""RMU's trainer: the activations of one block are steered on forget rows and held on retain rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dareu.errors import ConfigError
from dareu.methods.procedures import layer_index, random_direction, squared_distance
from dareu.methods.settings import HiddenSettings
from dareu.models.layers import activations, find_blocks, parameters_below
from dareu.models.load import as_original
from dareu.models.logprobs import IGNORE
from dareu.training.loss_trainer import LossTrainer


def chosen_parameters(model: Any, settings: HiddenSettings) -> tuple[int, list[str]]:
    """(the block whose activations are read, names of the parameters to train). `ConfigError` lists what there is."""
    count = len(find_blocks(model)[1])
    try:
        index = layer_index(settings.layer, count)
    except IndexError:
        raise ConfigError(
            f"The model has no layer {settings.layer} (method.params.layer).",
            f"It has the layers 0 to {count - 1}; a fraction of depth, such as 0.5, goes with any model.",
        ) from None
    return index, parameters_below(model, max(0, index - settings.blocks + 1), index, settings.modules)


class HiddenTrainer(LossTrainer):
    """Only the chosen parameters are trained; no pass goes further than the block that is read.

    The activations of forget rows are pulled to c·u, u a unit vector drawn from the seed alone; with `retain: own`
    those of retain rows are held where the frozen original has them.
    """

    def __init__(self, *, model: Any, args: Any, **kwargs: Any) -> None:
        self.layer, names = chosen_parameters(model, kwargs["settings"])
        # An adapter's base stays frozen.
        trained = [p for n, p in model.named_parameters() if n in set(names) and p.requires_grad]
        if not trained:
            raise ConfigError(
                "No adapter lies on the modules that method.params.modules names.",
                "Name them in model.lora.target_modules too, or set model.adapter=none.",
            )
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        super().__init__(model=model, args=args, **kwargs)
        size = model.config.get_text_config().hidden_size
        self.target = self.settings.coefficient * random_direction(size, args.seed).to(args.device)

    def _read(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            "activations": self._activations(model, inputs),
            "target": self.target,
            "mask": inputs["labels"] != IGNORE,  # not shifted: the activations of the answer's own tokens
        }

    def _activations(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        inner = self.accelerator.unwrap_model(model)
        return activations(model, inner, self.layer, batch["input_ids"], batch["attention_mask"])

    def _retain_term(self, model: Any) -> Tensor:
        if self.retain != "own":
            return super()._retain_term(model)
        assert self.retain_sampler is not None
        batch = self._batch_of(self.retain_sampler, self._micro_batch())
        now = self._activations(model, batch)
        with torch.no_grad(), as_original(self.accelerator.unwrap_model(model), self.reference) as frozen:
            then = self._activations(frozen, batch)
        return squared_distance(now, then, batch["labels"] != IGNORE)
