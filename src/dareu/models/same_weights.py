"""Whether two model folders hold the same weights, by their files alone."""

from pathlib import Path
from typing import Any

import numpy as np

from dareu.models.files import ADAPTER, ADAPTER_WEIGHTS, adapter_base, adapter_settings, weights_header

# Of an adapter: by what its tensors are scaled before they are added.
SCALES = ("peft_type", "r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "use_dora")


def same_weights(one: Path, other: Path) -> bool:
    """Whether both hold the same tensors, bit for bit, however these are cut into files; adapters the same base, scale.

    It reads up to the first tensor that differs. False where a folder has no weights, or only one is an adapter's.
    """
    adapters = [(folder / ADAPTER).is_file() for folder in (one, other)]
    if adapters[0] != adapters[1] or (adapters[0] and _adds(one) != _adds(other)):
        return False
    ours, theirs = _tensors(one, adapters[0]), _tensors(other, adapters[1])
    return bool(ours) and ours.keys() == theirs.keys() and all(_equal(ours[k], theirs[k]) for k in ours)


def _adds(adapter: Path) -> tuple[str, list[Any]]:
    """The base of an adapter, and how its tensors are scaled."""
    settings = adapter_settings(adapter)
    return adapter_base(adapter)[0], [settings.get(key) or None for key in SCALES]


def _tensors(folder: Path, adapter: bool) -> dict[str, tuple[str, list[int], np.ndarray]]:
    """Name → type, shape and bytes, which are read when they are looked at."""
    found: dict[str, tuple[str, list[int], np.ndarray]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if (path.name == ADAPTER_WEIGHTS) != adapter:
            continue
        tensors, start = weights_header(path)
        data = np.memmap(path, np.uint8, "r", offset=start) if path.stat().st_size > start else np.zeros(0)
        for name, entry in tensors.items():
            begin, end = entry["data_offsets"]
            found[name] = (entry["dtype"], entry["shape"], data[begin:end])
    return found


def _equal(one: tuple[str, list[int], np.ndarray], other: tuple[str, list[int], np.ndarray]) -> bool:
    return one[:2] == other[:2] and bool(np.array_equal(one[2], other[2]))
