"""A library does not change a process behind its user's back: all is restored after a call of ours."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import datasets
import torch
from transformers.utils import logging as of_transformers
from unlearner_fixture import GONE, ROWS

from dareu import Unlearner
from dareu.workflow.library_settings import ENVIRONMENT, LOGGERS, quiet_libraries


def state() -> dict[str, Any]:
    return {
        "verbosity": of_transformers.get_verbosity(),
        "bars": of_transformers.is_progress_bar_enabled(),
        "datasets": datasets.are_progress_bars_disabled(),
        "levels": {name: logging.getLogger(name).level for name in LOGGERS},
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "filters": list(warnings.filters),
        "threads": torch.get_num_threads(),
    }


def test_inside_libraries_are_quiet_and_afterwards_as_before() -> None:
    of_transformers.enable_progress_bar()
    datasets.enable_progress_bars()
    of_transformers.set_verbosity_info()
    logging.getLogger("peft").setLevel(logging.DEBUG)
    before = state()
    with quiet_libraries(threads=3):
        with quiet_libraries():
            assert not of_transformers.is_progress_bar_enabled()
        assert (
            of_transformers.get_verbosity() == logging.ERROR and not of_transformers.is_progress_bar_enabled()
        )
        assert datasets.are_progress_bars_disabled() and logging.getLogger("peft").level == logging.ERROR
        assert torch.get_num_threads() == 3 and os.environ["TRL_EXPERIMENTAL_SILENCE"] == "1"
    assert state() == before


def modes() -> tuple[object, ...]:
    """What a caller may have set: gradients, inference mode, default type and device, autocast."""
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.get_default_device().type, torch.is_autocast_enabled("cpu"),
    )  # fmt: skip


def test_modes_of_torch_are_the_usual_ones_inside_and_the_callers_afterwards() -> None:
    usual = (True, False, torch.float32, "cpu", False)
    assert modes() == usual
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
            theirs = modes()
            with quiet_libraries():
                assert modes() == usual
                torch.ones(2, requires_grad=True).sum().backward()
            assert modes() == theirs == (False, True, torch.bfloat16, "meta", True)
        with torch.no_grad(), quiet_libraries():
            assert modes() == usual
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_error_inside_restores_all_too() -> None:
    before = state()
    try:
        with quiet_libraries(threads=2):
            raise KeyError("x")
    except KeyError:
        pass
    assert state() == before


def test_constructing_an_unlearner_changes_nothing() -> None:
    of_transformers.enable_progress_bar()
    datasets.enable_progress_bars()
    of_transformers.set_verbosity_info()
    before = state()
    Unlearner(data=ROWS, forget=GONE, method="npo", threads=2)
    assert state() == before
