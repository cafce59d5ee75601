"""A fresh adapter on the base, in the upper blocks, trained on what should stay: no weight has seen a forgotten fact.

    π = base + an adapter that starts at nothing, in the blocks from `start` of the depth on
    L = −E_retain ln π(y|x)

For LoRA fine-tunes alone. It is retraining in two fifths of the time: below the adapter's first block nothing changes,
so what the lower blocks say of each row is computed once, and every epoch walks through the upper blocks alone. Nothing
of the result depends on the forget samples or on the original's weights; so nothing of them can be relearnt faster than
from the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dareu.config import HFConfig, RunConfig, Strict
from dareu.config.params import read_settings
from dareu.data.corpus import Sample, Split, learnt
from dareu.errors import ConfigError, ModelError
from dareu.methods.base import MethodContext
from dareu.methods.loss_method import LossMethod, settings_of
from dareu.models.files import is_plain_adapter
from dareu.training.loss_spec import FINETUNE
from dareu.training.losses import nll


class FreshAdapterSettings(Strict):
    """`start`: the share of the blocks, from the lowest on, that stay as the base has them; in [0, 1)."""

    start: Annotated[float, Field(ge=0, lt=1)] = 0.67


def reset_adapter(policy: Any, seed: int) -> None:
    """Give every LoRA layer of the policy's adapter its first values, drawn by `seed`: it then changes nothing.

    Raises:
        ModelError: The adapter changes nothing as it is: the model below it is no base but the original.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    from dareu.models.load import POLICY

    layers = [layer for layer in policy.modules() if isinstance(layer, LoraLayer)]
    up = [layer.lora_B[POLICY].weight for layer in layers if POLICY in layer.lora_B]
    if not up or not any(bool(weight.any()) for weight in up):
        raise ModelError(
            "The original model has no trained adapter, so there is no base without the forgotten samples below it.",
            "method=fresh_adapter needs an original that is a LoRA adapter (model.adapter=lora).",
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in layers:
            layer.reset_lora_parameters(POLICY, True)
            if POLICY in layer.lora_magnitude_vector:
                _reset_magnitude(layer, POLICY)


def _reset_magnitude(layer: Any, adapter: str) -> None:
    """Give a DoRA layer the column norms of its base's weight, which `reset_lora_parameters` leaves as trained."""
    magnitude = layer.lora_magnitude_vector[adapter]
    trained = magnitude.weight
    magnitude.update_layer(
        base_layer=layer.get_base_layer(),
        lora_A=layer.lora_A[adapter].weight,
        lora_B=layer.lora_B[adapter].weight,
        scaling=layer.scaling[adapter],
    )
    magnitude.weight.data = magnitude.weight.data.to(trained)
    magnitude.train()  # drops what it keeps of the trained weights in evaluation mode
    magnitude.train(layer.training)


@dataclass(frozen=True)
class FreshAdapter(LossMethod):
    """Fine-tunes a new adapter on the retain samples."""

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        super().validate(config, split)
        if not isinstance(config.model, HFConfig) or config.model.adapter != "lora":
            raise ConfigError(
                "method=fresh_adapter trains a new LoRA adapter on the base, and this model has none.",
                "Use model=hf with model.adapter=lora, the default there, or method=counterfactual.",
            )
        if config.original and not is_plain_adapter(Path(config.original)):
            raise ConfigError(
                f"The original {config.original} is a full model or merged into one, so there is no base without the "
                "forgotten samples below a new adapter.",
                "method=fresh_adapter needs an original that is a LoRA adapter; method=counterfactual does not.",
            )

    def samples(self, split: Split) -> Sequence[Sample]:
        """What the retrained model learns."""
        return learnt(split.retain, split)

    def passed_once(self, config: RunConfig, blocks: int) -> int:
        from dareu.models.upper_blocks import blocks_below

        if isinstance(config.model, HFConfig) and config.model.gradient_checkpointing:
            return 0
        return blocks_below(read_settings(FreshAdapterSettings, settings_of(config).params).start, blocks)

    def shares_weights(self) -> bool:
        return False  # blocks are passed over

    def run(self, context: MethodContext) -> dict[str, Any]:
        from dareu.models.upper_blocks import first_block, upper_blocks_alone
        from dareu.training.loss_trainer import train_with_loss

        config, method, work = context.config, settings_of(context.config), context.work
        settings = read_settings(FreshAdapterSettings, method.params)
        reset_adapter(context.policy, config.seed)
        rows, policy = context.encode(self.samples(context.split)), context.policy
        with upper_blocks_alone(
            policy,
            rows,
            first_block(policy, settings.start),
            context.tokenizer.pad_token_id,
            config.evaluation.batch_size,
        ):
            train_with_loss(
                policy,
                context.tokenizer,
                method=FINETUNE,
                optim=method.optim,
                rows=rows,
                seed=config.seed,
                device=context.device,
                work=work,
                by_length=True,
            )
        return {"steps": work.log[-1]["step"] if work.log else 0, "stopped": None}


METHOD = FreshAdapter(nll, walks="retain", settings=FreshAdapterSettings, retains=("none",))
