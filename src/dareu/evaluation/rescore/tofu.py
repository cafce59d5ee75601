"""TOFU's evaluation logs, a list of rows a set: `prompt`, `gold`, `generated`, and mean losses a token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dareu.errors import DataError
from dareu.evaluation.rescore.log import Log, finite, finite_list, text

SETS = ("forget", "retain", "real_authors", "world_facts")


def is_log(tree: Any) -> bool:
    """Whether a JSON object is laid out like these logs."""
    return isinstance(tree, Mapping) and any(isinstance(tree.get(of), list) for of in SETS)


def read(path: Path, tree: Mapping[str, Any]) -> Log:
    """The log in our records; a row's place in its list is its index. `DataError` for rows that are no objects."""
    records = []
    for of in SETS:
        rows = tree.get(of) or []
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise DataError(f"{path}: {of} is no list of rows.", "Give a log as TOFU's evaluation wrote it.")
        for index, row in enumerate(rows):
            fields = {
                "prompt": text(row.get("prompt")),
                "reference": text(row.get("gold")),
                "response": text(row.get("generated")),
                "rouge_l": finite(row.get("rouge_l_recall")),
                "nll": finite(row.get("gt_loss")),
                "paraphrased_nll": finite(row.get("paraphrased_loss")),
                "wrong_nlls": finite_list(row.get("perturbed_losses")),
            }
            records.append({"set": of, "index": index, **{k: v for k, v in fields.items() if v is not None}})
    unread = [name for name in tree if name not in SETS]
    return Log(path, "tofu", records, "geometric", {}, unread)
