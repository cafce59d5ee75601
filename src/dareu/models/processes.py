"""Connects the processes of a run: torch.distributed as the channel of `dareu.runs.ranks`."""

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dareu.runs import ranks

# Of the channel alone: process 0 may work for hours while the others wait, and a process that dies closes its socket.
WAIT = timedelta(days=7)


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
