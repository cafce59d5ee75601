"""RMU: steer the forget set's activations in one block to a random direction, hold those of the retain set (Li et al.
2024, arXiv 2403.03218).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from dareu.config import Count, Positive, RunConfig, Strict
from dareu.config.params import read_settings
from dareu.data.corpus import Split
from dareu.errors import ConfigError
from dareu.methods.loss_method import LossMethod, settings_of
from dareu.models.layers import activations, find_blocks, parameters_below
from dareu.models.load import as_original
from dareu.models.logprobs import IGNORE
from dareu.models.without_weights import model_without_weights
from dareu.training.loss_trainer import LossTrainer
from dareu.training.losses import mean

# Below 1: content keys do not tell 1.0 from 1. The last block is -1.
Depth = Annotated[float, Field(gt=0, lt=1)]


class RMUSettings(Strict):
    """`layer`: a block's index, or a fraction of depth; `blocks`: how many blocks up to it are trained;
    `modules`: what of them, as patterns of module names below a block; `coefficient`: c, the length of the target.
    """

    layer: int | Depth
    blocks: Count = 3
    modules: list[str] = Field(["mlp.down_proj"], min_length=1)
    coefficient: Positive


def squared_distance(activations: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over tokens and dimensions of (a − target)² (RMU; Li et al. 2024, arXiv 2403.03218, eq. 1 and 2). ≥ 0.

    `activations` (B, T, d), `target` (d) or (B, T, d), `mask` (B, T). The paper sums over dimensions; the authors' code
    takes their mean, to which its weights belong, and so does this.
    """
    counts = mask.bool()
    wanted = target if target.dim() == 1 else target[counts]
    return mean(((activations[counts].float() - wanted.float()) ** 2).mean(-1))


def random_direction(size: int, seed: int) -> Tensor:
    """A unit vector (size,) of uniform random numbers in [0, 1), the same for the same seed on every machine (RMU)."""
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm()


def layer_index(layer: int | float, layers: int) -> int:
    """The index of the block that `layer` means, of `layers` blocks: a whole number counts from 0 (negative: from the
    end), a fraction of depth f means the block that ends there, ⌈f · layers⌉ − 1.

    .25 is block 7 of 32, which the paper takes, and block 0 of 4.

    Raises:
        IndexError: There is none.
    """
    if isinstance(layer, int):
        index = layer + layers if layer < 0 else layer
    else:
        index = max(math.ceil(layer * layers), 1) - 1
    if not 0 <= index < layers:
        raise IndexError(layer)
    return index


def chosen_parameters(model: Any, settings: RMUSettings) -> tuple[int, list[str]]:
    """(the block whose activations are read, names of the parameters to train).

    Raises:
        ConfigError: The model has no such block or parameters; the message lists what there is.
    """
    count = len(find_blocks(model)[1])
    try:
        index = layer_index(settings.layer, count)
    except IndexError:
        raise ConfigError(
            f"The model has no layer {settings.layer} (method.params.layer).",
            f"It has the layers 0 to {count - 1}; a fraction of depth, such as 0.5, goes with any model.",
        ) from None
    return index, parameters_below(model, max(0, index - settings.blocks + 1), index, settings.modules)


class RMUTrainer(LossTrainer):
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
                "There is no adapter on the modules that method.params.modules names.",
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
        batch = self._batch_of(self.retain_sampler)
        now = self._activations(model, batch)
        with torch.no_grad(), as_original(self.accelerator.unwrap_model(model), self.reference) as frozen:
            then = self._activations(frozen, batch)
        return squared_distance(now, then, batch["labels"] != IGNORE)


@dataclass(frozen=True)
class RMU(LossMethod):
    """Its layer and modules have to be there in the model."""

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        super().validate(config, split)
        if split is None:
            model = model_without_weights(config)
            if model is not None:
                chosen_parameters(model, read_settings(RMUSettings, settings_of(config).params))


METHOD = RMU(
    squared_distance,
    reads=("activations", "target", "mask"),
    trainer=RMUTrainer,
    settings=RMUSettings,
    retains=("own", "nll", "kl", "none"),
)
