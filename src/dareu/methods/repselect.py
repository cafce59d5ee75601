"""RepSelect: ascend the forget loss along the directions that other text does not use (arXiv 2606.17168).

    1. elicit     an adapter on the MLPs learns the forget answers for one pass (plain gradient descent)
    2. gradient   G = ∇_W of −NLL on the forget set, the adapter in place;  U S Vᵀ: the main components of the gradient
                  on the retain set (`source=retain`) or of G itself (`source=forget`)
    3. collapse   G loses its share along V (inputs) and U (outputs): each component is divided by s_i / s_min
                  (`soft`), by its square (`quadratic`), or removed (`hard`)
    4. steps      W ← W − lr · G, one G for all steps, until KL( π_N ‖ π ) on retain samples passes `kl_budget`

Gate, up and down projections of each MLP are changed and nothing else. docs/methods/repselect.md lists the differences
from the published code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from dareu.config import Count, HFConfig, NonNegative, Positive, RunConfig, Strict
from dareu.config.params import read_settings
from dareu.data.corpus import Split
from dareu.data.render import Encoded
from dareu.errors import ConfigError, ModelError
from dareu.methods.base import MethodContext
from dareu.methods.loss_method import LossMethod, settings_of
from dareu.training.common import non_finite
from dareu.training.losses import nll

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
Collapse = Literal["hard", "soft", "quadratic"]


class RepSelectSettings(Strict):
    """`components`: q of the singular value decomposition; `elicit_lr`: of the adapter's pass, 0 leaves it out;
    `source` and `collapse`: see above; `kl_budget`: nats a token on retain samples, at which the steps end.
    """

    components: Count = 16
    elicit_lr: NonNegative = 0.01
    source: Literal["retain", "forget"] = "retain"
    collapse: Collapse = "quadratic"
    kl_budget: Positive = 0.1


def collapsed(matrix: Tensor, vectors: Tensor, values: Tensor, how: Collapse) -> Tensor:
    """`matrix` (m, n) with its share along the columns of `vectors` (n, q), which are orthonormal, made smaller.

    hard: removed. soft: divided by s_i / min s. quadratic: divided by the square of that. `values` (q,) are > 0; what
    is orthogonal to all of `vectors` stays.
    """
    along = matrix @ vectors
    if how == "hard":
        return matrix - along @ vectors.mT
    ratio = values / values.amin().clamp(min=torch.finfo(values.dtype).tiny)
    if how == "quadratic":
        ratio = ratio**2
    return matrix - (along - along / ratio) @ vectors.mT


def mlp_weights(model: Any) -> dict[str, Any]:
    """Name → linear layer of each gate, up and down projection.

    Raises:
        ModelError: There is none.
    """
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if name.rsplit(".", 1)[-1] in PROJECTIONS and isinstance(layer, torch.nn.Linear)
    }
    if not layers:
        raise ModelError(
            f"This model has no linear layers called {', '.join(PROJECTIONS)}.",
            "method=repselect changes those of Llama-like models; take another method.",
        )
    return layers


def _batches(rows: Sequence[Encoded], size: int) -> list[Sequence[Encoded]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _backward(model: Any, tokenizer: Any, rows: Sequence[Encoded], sign: float) -> None:
    from dareu.models.logprobs import response_logprobs, to_batch

    (sign * nll(*response_logprobs(model, to_batch(rows, tokenizer.pad_token_id, model.device)))).backward()


def selected_gradients(
    model: Any,
    tokenizer: Any,
    forget: Sequence[Encoded],
    retain: Sequence[Encoded],
    settings: RepSelectSettings,
    batch_size: int,
    seed: int,
) -> dict[str, Tensor]:
    """Name of each projection → the collapsed gradient of −NLL on the forget set. The model's weights stay."""
    from peft import LoraConfig, get_peft_model

    layers = mlp_weights(model)
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, LoraConfig(target_modules=list(PROJECTIONS)))
    wrapped.train()
    adapter = [p for name, p in wrapped.named_parameters() if "lora_" in name]
    if settings.elicit_lr:
        for rows in _batches(forget, batch_size):
            wrapped.zero_grad()
            _backward(wrapped, tokenizer, rows, 1.0)
            with torch.no_grad():
                for parameter in adapter:
                    if parameter.grad is not None:
                        parameter -= settings.elicit_lr * parameter.grad
    wrapped.requires_grad_(False)
    for layer in layers.values():
        layer.weight.requires_grad_(True)

    def gradients(rows: Sequence[Encoded], sign: float) -> dict[str, Tensor]:
        for layer in layers.values():
            layer.weight.grad = None
        for batch in _batches(rows, batch_size):
            _backward(wrapped, tokenizer, batch, sign)
        return {name: layer.weight.grad.detach().float().clone() for name, layer in layers.items()}

    ascent = gradients(forget, -1.0)
    other = gradients(retain, -1.0) if settings.source == "retain" else ascent
    for layer in layers.values():
        layer.weight.grad = None
    wrapped.unload()
    selected = {}
    for name, gradient in ascent.items():
        u, s, v = torch.svd_lowrank(other[name], q=min(settings.components, *gradient.shape))
        kept = s > s.max() * 1e-6  # directions that the gradient does not have
        inputs = collapsed(gradient, v[:, kept], s[kept], settings.collapse)
        selected[name] = collapsed(inputs.mT, u[:, kept], s[kept], settings.collapse).mT
    return selected


@dataclass(frozen=True)
class RepSelect(LossMethod):
    """Steps along one gradient; `optim.lr` and `optim.epochs` are their length and their greatest number."""

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        super().validate(config, split)
        if isinstance(config.model, HFConfig) and config.model.adapter != "none":
            raise ConfigError(
                "method=repselect changes the weights of the MLPs, and this model trains an adapter beside them.",
                "Set model.adapter=none, or take another method.",
            )

    def shares_weights(self) -> bool:
        return False  # weights are changed beside training

    def run(self, context: MethodContext) -> dict[str, Any]:
        from dareu.models.load import freeze_original
        from dareu.models.logprobs import kl_divergence, response_logits, to_batch

        config, method, policy = context.config, settings_of(context.config), context.policy
        settings = read_settings(RepSelectSettings, method.params)
        forget, retain = context.encode(context.split.forget), context.encode(context.split.retain)
        original = freeze_original(policy)
        gradients = selected_gradients(
            policy, context.tokenizer, forget, retain, settings, method.optim.batch_size, config.seed
        )
        batch = to_batch(
            retain[: config.evaluation.batch_size], context.tokenizer.pad_token_id, policy.device
        )
        layers = mlp_weights(policy)
        stopped = None
        policy.eval()
        with torch.no_grad():
            then, _, _ = response_logits(original, batch)
            for step in range(1, int(method.optim.steps or method.optim.epochs) + 1):
                for name, layer in layers.items():
                    layer.weight -= method.optim.lr * gradients[name].to(layer.weight)
                now, _, _ = response_logits(policy, batch)
                divergence = float(kl_divergence(then, now).mean())
                context.work.log.append({"step": step, "loss": divergence, "kl_retain": divergence})
                if not torch.isfinite(torch.tensor(divergence)):
                    raise non_finite(step)
                if divergence > settings.kl_budget:
                    stopped = f"KL {divergence:.3f} on retain samples passed {settings.kl_budget}"
                    break
        policy.requires_grad_(True)
        return {"steps": context.work.log[-1]["step"], "stopped": stopped}


METHOD = RepSelect(nll, settings=RepSelectSettings, retains=("none",))
