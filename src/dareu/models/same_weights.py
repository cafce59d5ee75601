"""Whether two model folders hold the same weights, by their files alone."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dareu.models.files import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    adapter_base,
    adapter_settings,
    changes_base,
    weights_header,
)

# Of an adapter: by what its tensors are scaled before they are added.
SCALES = ("peft_type", "r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "use_dora")
# Types of numbers, those with the fewest digits first.
FLOATS = ("BF16", "F16", "F32", "F64")


class Tensor(NamedTuple):
    """A tensor in a file: its type as safetensors writes it, its shape, its bytes, read when they are looked at."""

    dtype: str
    shape: list[int]
    data: np.ndarray


def same_weights(one: Path, other: Path) -> bool:
    """Whether both hold the same tensors, however these are cut into files; adapters the same base and scale.

    Of two types of numbers the one with fewer digits decides: a model and its copy in bfloat16 have the same weights.
    A LoRA adapter that adds nothing, for one of its two matrices is 0 everywhere, has the weights of its base. A copy
    of a tensor under a further name, as of tied embeddings, is no other weight.

    It reads up to the first tensor that differs. False where a folder has no weights, or only one is an adapter's.
    """
    one, other = _beneath(one), _beneath(other)
    adapters = [(folder / ADAPTER).is_file() for folder in (one, other)]
    if adapters[0] != adapters[1] or (adapters[0] and not _add_alike(one, other)):
        return False
    ours, theirs = _tensors(one, adapters[0]), _tensors(other, adapters[1])
    shared = ours.keys() & theirs.keys()
    copies = all(
        _is_copy(name, mine, shared) for mine in (ours, theirs) for name in sorted(mine.keys() - shared)
    )
    return bool(shared) and copies and all(_equal(ours[k], theirs[k]) for k in sorted(shared))


def _beneath(folder: Path) -> Path:
    """The base of an adapter that adds nothing, where that lies in a folder; else `folder` itself."""
    if not (folder / ADAPTER).is_file() or not _adds_nothing(folder):
        return folder
    base = Path(adapter_base(folder)[0])
    return base if base.is_dir() else folder


def _adds_nothing(adapter: Path) -> bool:
    """Whether one of the two matrices of each place is 0; False for adapters with more than these, a bias or DoRA's."""
    settings = adapter_settings(adapter)
    if settings.get("lora_bias") or changes_base(settings.get("init_lora_weights", True)):
        return False
    tensors = _tensors(adapter, True)
    places: dict[str, list[str]] = {}
    for name in tensors:
        place, found, _ = name.partition(".lora_")
        if not found or "magnitude" in name:
            return False
        places.setdefault(place, []).append(name)
    zero = (any(not _values(tensors[name]).any() for name in names) for names in places.values())
    floats = all(tensor.dtype in FLOATS for tensor in tensors.values())
    return bool(places) and floats and all(zero)


def _add_alike(one: Path, other: Path) -> bool:
    """Whether two adapters stand on the same base and are scaled in the same way."""
    bases = [adapter_base(folder)[0] for folder in (one, other)]
    scales = [
        [settings.get(key) or None for key in SCALES]
        for settings in (adapter_settings(one), adapter_settings(other))
    ]
    if scales[0] != scales[1]:
        return False
    folders = [Path(base) for base in bases]
    return bases[0] == bases[1] or (all(f.is_dir() for f in folders) and same_weights(*folders))


def _tensors(folder: Path, adapter: bool) -> dict[str, Tensor]:
    """Name → tensor."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if (path.name == ADAPTER_WEIGHTS) != adapter:
            continue
        tensors, start = weights_header(path)
        whole = path.stat().st_size > start
        data = np.memmap(path, np.uint8, "r", offset=start) if whole else np.zeros(0, np.uint8)
        for name, entry in tensors.items():
            begin, end = entry["data_offsets"]
            found[name] = Tensor(entry["dtype"], entry["shape"], data[begin:end])
    return found


def _is_copy(name: str, tensors: dict[str, Tensor], among: set[str]) -> bool:
    """Whether the tensor of this name is, bit for bit, one of those `among`."""
    own = tensors[name]
    alike = (tensors[k] for k in among if (tensors[k].dtype, tensors[k].shape) == (own.dtype, own.shape))
    return any(_equal(own, tensor) for tensor in alike)


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype == other.dtype:
        return bool(np.array_equal(one.data, other.data))
    if one.dtype not in FLOATS or other.dtype not in FLOATS:
        return False
    coarse, fine = sorted((one, other), key=lambda tensor: FLOATS.index(tensor.dtype))
    return bool(np.array_equal(_values(coarse), _rounded(_values(fine), coarse.dtype)))


def _values(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor of one of the types `FLOATS`, flat; those of bfloat16 as float32."""
    raw = np.ascontiguousarray(tensor.data)
    if tensor.dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[tensor.dtype])


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` rounded to a type with fewer digits, to the nearest, halves to even; bfloat16 as float32."""
    with np.errstate(over="ignore"):
        if dtype != "BF16":
            return values.astype({"F16": "<f2", "F32": "<f4"}[dtype])
        bits = values.astype(np.float32).view(np.uint32)
    return ((bits + (0x7FFF + (bits >> 16 & 1))) & np.uint32(0xFFFF0000)).view(np.float32)
