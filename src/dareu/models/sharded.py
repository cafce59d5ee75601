"""Weights that FSDP2 or ZeRO-3 has cut up among the processes, put together again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from dareu.runs.ranks import is_main

ENGINES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # as `accelerate launch` names them


def full_weights(model: Any) -> dict[str, Tensor] | None:
    """Name → weight on the CPU, complete on process 0 and empty elsewhere; None where no weight is cut up.

    One weight at a time is put together. All processes have to call it.
    """
    weights = model.state_dict(keep_vars=True)
    if not any(hasattr(weight, "full_tensor") or hasattr(weight, "ds_id") for weight in weights.values()):
        return None
    whole: dict[int, Tensor] = {}  # by identity: tied weights stay tied
    for weight in weights.values():
        if id(weight) not in whole:
            with _gathered(weight) as complete:
                whole[id(weight)] = complete.detach().cpu().clone() if is_main() else complete.new_empty(0)
    return {name: whole[id(weight)] for name, weight in weights.items()} if is_main() else {}


@contextmanager
def _gathered(weight: Any) -> Iterator[Tensor]:
    if hasattr(weight, "ds_id"):  # ZeRO-3
        from deepspeed.zero import GatheredParameters

        with GatheredParameters([weight]):
            yield weight
    else:
        yield weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def engine() -> str:
    """What trains: ddp, fsdp2, or zero1 to zero3, as `accelerate launch` was told to."""
    fsdp, deepspeed = (os.environ.get(name, "").lower() == "true" for name in ENGINES)
    if fsdp:
        return "fsdp2"
    return f"zero{os.environ.get('ACCELERATE_DEEPSPEED_ZERO_STAGE', '2')}" if deepspeed else "ddp"


@contextmanager
def whole_weights() -> Iterator[None]:
    """Trainers made inside keep whole weights in each process (DDP), whatever engine the launcher has chosen."""
    taken = {name: os.environ.pop(name) for name in ENGINES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)
