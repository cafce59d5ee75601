"""Rollouts through a merged adapter: two to three times faster than through an unmerged one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dareu.models.load import POLICY, is_peft


@contextmanager
def merged(model: Any, adapter: str = POLICY) -> Iterator[None]:
    """Fold the adapter into the base weights for a while, then put the very same base weights back.

    Unmerging by subtraction would leave rounding errors in the frozen base, more with every batch; a copy does not.
    Costs a copy of the adapted weights. Does nothing for a model without an adapter.
    """
    if not is_peft(model):
        yield
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    saved = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    try:
        for layer in layers:
            layer.merge(adapter_names=[adapter])
        yield
    finally:
        with torch.no_grad():
            for layer, weight in zip(layers, saved, strict=True):
                layer.get_base_layer().weight.copy_(weight)
                layer.merged_adapters.clear()
