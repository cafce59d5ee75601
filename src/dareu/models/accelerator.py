"""What a run held of a CUDA device's memory."""

from __future__ import annotations

import torch


def accelerator_used() -> tuple[str | None, float | None]:
    """(name of the CUDA device this process has computed on, the most of its memory in tensors so far in MiB).

    (None, None) where nothing was computed on one. The context and libraries' own workspaces are not counted.
    """
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (torch.cuda.get_device_name(), peak / 2**20) if peak else (None, None)


def reset_accelerator_peak() -> None:
    """From here on `accelerator_used` counts anew."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
