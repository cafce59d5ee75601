"""What is said of a CUDA device: nothing where none was computed on."""

from __future__ import annotations

import pytest
import torch

from dareu.models.memory import accelerator_used, reset_accelerator_peak


def test_a_run_on_the_cpu_names_no_accelerator() -> None:
    reset_accelerator_peak()
    assert accelerator_used() == (None, None)
    assert not torch.cuda.is_initialized()


def test_the_fullest_device_in_mib_counted_from_the_last_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {0: 2**20, 1: 3 * 2**20}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(held))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", held.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_name", "NVIDIA {}".format)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda index: held.update({index: 0}))
    assert accelerator_used() == ("NVIDIA 1", 3.0)
    reset_accelerator_peak()
    assert accelerator_used() == (None, None)  # CUDA is up, and nothing was computed on it
