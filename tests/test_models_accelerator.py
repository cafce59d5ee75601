"""What is said of a CUDA device: nothing where none was computed on."""

from __future__ import annotations

import pytest
import torch

from dareu.models.accelerator import accelerator_used, reset_accelerator_peak


def test_a_run_on_the_cpu_names_no_accelerator() -> None:
    reset_accelerator_peak()
    assert accelerator_used() == (None, None)


def test_the_peak_is_in_mib_and_counts_from_the_last_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"peak": 3 * 2**20}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["peak"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA X")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.update(peak=0))
    assert accelerator_used() == ("NVIDIA X", 3.0)
    reset_accelerator_peak()
    assert accelerator_used() == (None, None)  # a GPU is here, and device=cpu was asked for
