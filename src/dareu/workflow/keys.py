"""What content keys are made over: samples, model folders, training sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.data.corpus import Sample, digest, sample_tree
from dareu.models.files import ADAPTER, adapter_base
from dareu.runs.manifest import content_key, file_digest


def samples_key(samples: Sequence[Sample]) -> str:
    """Content key of a list of samples."""
    return digest([sample_tree(s) for s in samples])


def folder_key(folder: Path) -> str:
    """Content key of a model folder: every byte of its files, since an edit may touch one layer alone; of an adapter's
    folder those of its base too.
    """
    tree: dict[str, str] = {p.name: file_digest(p) for p in sorted(folder.iterdir()) if p.is_file()}
    if (folder / ADAPTER).is_file():
        base = Path(adapter_base(folder)[0])
        if base.is_dir():
            tree["base model"] = folder_key(base)
    return content_key(tree)


def imported_key(folder: Path) -> str:
    """Content key of a model that was trained elsewhere."""
    return content_key({"original": folder_key(folder)})


def names_a_base(base: Mapping[str, Any], imported: str | None) -> bool:
    """Whether `model.path` is another model than the original that was given: what that was fine-tuned from.

    `base`, `imported`: of the run's `Context`.
    """
    if "content" in base:
        return content_key({"original": base["content"]}) != imported
    return "path" in base  # on the hub
