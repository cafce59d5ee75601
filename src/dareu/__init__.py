"""dareu: make a fine-tuned language model forget chosen data owners.

`import dareu` loads no torch; the names below are resolved when they are first used.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dareu.api import Unlearner

try:
    __version__ = version("dareu")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["Unlearner", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Unlearner":
        from dareu.api import Unlearner

        return Unlearner
    raise AttributeError(f"module 'dareu' has no attribute {name!r}")
