"""dareu: make a fine-tuned language model forget chosen data owners.

`import dareu` loads no torch; the names below are resolved when they are first used.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from dareu.moved import OldPaths

if TYPE_CHECKING:
    from dareu.api import Unlearner
    from dareu.evaluation.results import results_frame

try:
    __version__ = version("dareu")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

sys.meta_path.append(OldPaths())

__all__ = ["Unlearner", "__version__", "results_frame"]


def __getattr__(name: str) -> Any:
    if name == "Unlearner":
        from dareu.api import Unlearner

        return Unlearner
    if name == "results_frame":
        from dareu.evaluation.results import results_frame

        return results_frame
    raise AttributeError(f"module 'dareu' has no attribute {name!r}")
