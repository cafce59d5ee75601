"""Where benchmark data lies that is not part of the repository; tests that need it are skipped where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared(name: str) -> Path:
    """The folder `name` of the shared data: below $DAREU_SHARED, or beside the repository; skips without it."""
    own = os.environ.get("DAREU_SHARED")
    for folder in [Path(own)] if own else [ROOT.parent / "shared", ROOT.parent.parent / "shared"]:
        if (folder / "data" / name).is_dir():
            return folder / "data" / name
    pytest.skip(f"needs the shared data set {name} beside the repository, or below $DAREU_SHARED")
