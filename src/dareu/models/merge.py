"""Answers through an adapter, cheaper than as it is trained: merged, or in the base's own precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dareu.models.load import POLICY, is_peft


@contextmanager
def merged(model: Any, adapter: str = POLICY) -> Iterator[None]:
    """Fold the adapter into the base weights for a while, then put the very same base weights back.

    Unmerging by subtraction would leave rounding errors in the frozen base, more with every batch; a copy does not.
    Costs a copy of the adapted weights, and of a head that is tied to an adapted embedding. Does nothing for a model
    without an adapter, or on quantised weights.
    """
    if not is_peft(model):
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    weights = [_adapted(layer) for layer in layers]
    if not all(p.is_floating_point() for p in weights):  # quantised: what is folded in would be rounded again
        yield
        return
    head = model.get_output_embeddings()
    head = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
    shared = getattr(head, "weight", None)
    if shared is not None and any(weight is shared for weight in weights):
        # Tied: an adapter is on one of the two.
        head.weight = torch.nn.Parameter(shared.detach().clone(), requires_grad=False)
        weights = [_adapted(layer) for layer in layers]
    saved = [weight.detach().clone() for weight in weights]
    try:
        for layer in layers:
            layer.merge(adapter_names=[adapter])
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, saved, strict=True):
                weight.copy_(before)
            for layer in layers:
                layer.merged_adapters.clear()
            if shared is not None:
                head.weight = shared


@contextmanager
def adapter_in_base_precision(model: Any) -> Iterator[None]:
    """Within it the matrices of a LoRA adapter have the 16-bit type of the weights that they are added to.

    PEFT keeps them in float32 for training, and casts the input of each adapted layer to float32 and its output back:
    a third of the time in which a bfloat16 model answers. Copies stand in for the float32 matrices, which are back
    afterwards. Does nothing where the base is not of 16-bit floating-point weights, and to layers with a variant such
    as DoRA, which needs norms.
    """
    replaced: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    try:
        for layer in model.modules() if is_peft(model) else ():
            if not isinstance(getattr(layer, "lora_A", None), torch.nn.ModuleDict) or layer.lora_variant:
                continue
            dtype = _adapted(layer).dtype
            if dtype not in (torch.bfloat16, torch.float16):
                continue
            for module in (*layer.lora_A.values(), *layer.lora_B.values()):
                for name, own in list(module.named_parameters(recurse=False)):
                    if own.dtype != dtype:
                        replaced.append((module, name, own))
                        # Not `own.data`: DDP would no longer see the gradients of one whose type has changed.
                        setattr(module, name, torch.nn.Parameter(own.detach().to(dtype), requires_grad=False))
        yield
    finally:
        for module, name, own in replaced:
            setattr(module, name, own)


def _adapted(layer: Any) -> torch.Tensor:
    """The base weight that an adapter layer changes: of a mixture's experts one of several tensors of a module."""
    base = layer.get_base_layer()
    weight: torch.Tensor = getattr(base, getattr(layer, "parameter_name", "weight"))
    return weight
