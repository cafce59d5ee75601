"""Connects the processes of a run, and puts weights together that FSDP2 or ZeRO-3 has cut up among them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dareu.runs import ranks

# Of the channel alone: process 0 may work for hours while the others wait, and a process that dies closes its socket.
WAIT = timedelta(days=7)
ENGINES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # as `accelerate launch` names them


class _Group:
    """Objects over a group of its own (gloo), which neither shares a device nor a time limit with training."""

    def __init__(self, store: Any) -> None:
        self.store = dist.PrefixStore("dareu", store)
        self.group = dist.new_group(backend="gloo", timeout=WAIT)

    def gather(self, value: Any) -> list[Any]:
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    def first(self) -> bool:
        return int(self.store.add("first", 1)) == 1


def connect() -> None:
    """Make this process one of several where the environment says so; nothing with one process, or a second time."""
    if ranks.world_size() == 1 or ranks.connected():
        return
    from torch.distributed.rendezvous import rendezvous

    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, world = next(rendezvous("env://"))
    if not dist.is_initialized():
        dist.init_process_group(store=store, rank=rank, world_size=world)
    ranks.connect(_Group(store))


def disconnect() -> None:
    """End the connection, at the end of a command."""
    if ranks.connected():
        ranks.connect(None)
        dist.destroy_process_group()


def sum_over_processes(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of `tensor` over all processes, in place."""
    if ranks.world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


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
                whole[id(weight)] = (
                    complete.detach().cpu().clone() if ranks.is_main() else complete.new_empty(0)
                )
    return {name: whole[id(weight)] for name, weight in weights.items()} if ranks.is_main() else {}


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
