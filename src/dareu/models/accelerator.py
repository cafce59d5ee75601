"""What a run held of a CUDA device's memory."""

from __future__ import annotations

import torch


def accelerator_used() -> tuple[str | None, float | None]:
    """(name of the CUDA device this process has computed on, the most of its memory in tensors so far in MiB).

    The fullest one where there were several; (None, None) where nothing was computed on any. The context and
    libraries' own workspaces are not counted. No device is woken by asking.
    """
    if not torch.cuda.is_initialized():
        return None, None
    peak, index = max((torch.cuda.max_memory_allocated(i), i) for i in range(torch.cuda.device_count()))
    return (torch.cuda.get_device_name(index), peak / 2**20) if peak else (None, None)


def reset_accelerator_peak() -> None:
    """From here on `accelerator_used` counts anew."""
    if torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
