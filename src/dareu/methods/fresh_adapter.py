"""A fresh adapter on the base, distilled from the original: the forgotten knowledge was never in its weights.

    c_t  for forget samples: the counterfactual teacher (`methods/counterfactual.py`)
    π_N  for retain samples: the original itself
    L    = mean_t KL( target ‖ π ),  π = base + an adapter that starts at nothing

For LoRA fine-tunes alone. Soft targets say more of a token than its label, so fewer epochs than retraining's may do;
UNDO (arXiv 2506.06278) reports that distilling into noised weights resists relearning, which is the reason to try it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dareu.config import HFConfig, RunConfig
from dareu.data.corpus import Split
from dareu.errors import ConfigError, ModelError
from dareu.methods.base import MethodContext
from dareu.methods.counterfactual import Counterfactual, CounterfactualSettings
from dareu.methods.distillation import READS, kept_distributions
from dareu.models.files import is_plain_adapter
from dareu.training.losses import SoftTargets, divergence_from_targets


def reset_adapter(policy: Any) -> None:
    """Give every LoRA layer of the policy's adapter its first values, under which it changes nothing.

    Raises:
        ModelError: The adapter changes nothing as it is: the model below it is no base but the original.
    """
    from peft.tuners.lora import LoraLayer

    from dareu.models.load import POLICY

    layers = [layer for layer in policy.modules() if isinstance(layer, LoraLayer)]
    up = [layer.lora_B[POLICY].weight for layer in layers if POLICY in layer.lora_B]
    if not up or not any(bool(weight.any()) for weight in up):
        raise ModelError(
            "The original model has no trained adapter, so there is no base without the forgotten samples below it.",
            "method=fresh_adapter needs an original that is a LoRA adapter (model.adapter=lora).",
        )
    for layer in layers:
        layer.reset_lora_parameters(POLICY, True)


@dataclass(frozen=True)
class FreshAdapter(Counterfactual):
    """Walks through forget and retain samples; there is no retain term beside them."""

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        super().validate(config, split)
        if not isinstance(config.model, HFConfig) or config.model.adapter != "lora":
            raise ConfigError(
                "method=fresh_adapter trains a new LoRA adapter on the base, and this model has none.",
                "Use a model with model.adapter=lora, or method=counterfactual.",
            )
        if config.original and not is_plain_adapter(Path(config.original)):
            raise ConfigError(
                f"The original {config.original} is a full model or merged into one, so there is no base without the "
                "forgotten samples below a new adapter.",
                "method=fresh_adapter needs an original that is a LoRA adapter; method=counterfactual does not.",
            )

    def make_student(self, policy: Any) -> None:
        reset_adapter(policy)

    def teachers(self, context: MethodContext, settings: CounterfactualSettings) -> list[SoftTargets]:
        kept = kept_distributions(context, context.encode(context.split.retain), settings.top_k)
        return super().teachers(context, settings) + kept


METHOD = FreshAdapter(
    divergence_from_targets, reads=READS, settings=CounterfactualSettings, retains=("none",), walks="both"
)
