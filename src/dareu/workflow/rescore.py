"""What the command line calls for `dareu rescore`; nothing here loads torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from dareu.evaluation.rescore import open_unlearning
from dareu.evaluation.rescore.rescore import rescore

__all__ = ["in_open_unlearning", "rescore"]


def in_open_unlearning(
    results: Mapping[str, Any], records: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """The log under evaluation in open-unlearning's layout."""
    return open_unlearning.write(records["unlearned"], results["models"]["unlearned"], results)
