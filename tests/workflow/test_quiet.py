"""What is done once for a process."""

from __future__ import annotations

import gc

import pytest

from dareu.workflow.library_settings import freeze_imports


def test_the_collector_forgets_the_libraries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    monkeypatch.setattr(gc, "get_freeze_count", lambda: len(frozen))
    freeze_imports()
    freeze_imports()  # a second run in one process: what the first left behind may still be collected
    assert frozen == [1]
