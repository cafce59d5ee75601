"""Checks of a model folder by its files alone, before a heavy library is imported."""

import json
import math
from pathlib import Path
from typing import Any

from dareu.config.tables import leaves
from dareu.errors import ModelError

ADAPTER = "adapter_config.json"
CONFIG = "config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SAVED = "Give the folder that save_pretrained wrote."
NO_PICKLE = "Save the model again with save_pretrained; pickled .bin weights are not read."
MAPPINGS = (CONFIG, "generation_config.json", "tokenizer_config.json")
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
POINTER = b"version https://git-lfs"
READ = (".safetensors", ".json", ".model", ".txt", ".jinja")  # what a model or its tokenizer may be read from
# Keys of a model's config, in this or another architecture's words.
POSITIVE = (
    "rope_theta",
    *("num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "hidden_size", "n_embd", "vocab_size"),
    *("max_position_embeddings", "n_positions"),
)
# Keys of `model.lora` → those of peft.
PEFT = {
    "r": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "target_modules": "target_modules",
    "dora": "use_dora",
    "rslora": "use_rslora",
}
# Vectors before the text in place of weights: nothing to merge, and no second copy beside the first.
PROMPTS = (
    "PROMPT_TUNING",
    "PREFIX_TUNING",
    "P_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "CARTRIDGE",
    "ADAPTION_PROMPT",
)


def check_files(folder: Path) -> None:
    """Check that the weights of a model or adapter folder are safetensors, were downloaded, and are whole.

    Only headers and sizes are read.

    Raises:
        ModelError: Something is missing, pickled, cut, or a git-lfs pointer; or the adapter is of a kind that cannot
            be merged.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in READ and path.is_file() and _is_pointer(path):
            raise ModelError(
                f"{path} was not downloaded: it is a git-lfs pointer to the file.",
                "Run git lfs pull in that folder, or download the file again.",
            )
        if (
            path.name in MAPPINGS and path.is_file() and _tree(path) is None
        ):  # transformers leaves a broken one out
            raise ModelError(f"{path} cannot be read: it is no JSON mapping.", "Download or save it again.")
    if (folder / ADAPTER).is_file():
        _check_adapter(folder)
        return
    if not any(folder.glob("*.safetensors")) and not (folder / INDEX).is_file():
        raise ModelError(
            f"The model folder {folder} holds no weights (no *.safetensors file).",
            "Give a folder written by save_pretrained; pickled .bin weights are not read.",
        )
    _check_shape(folder / CONFIG)
    if (folder / WEIGHTS).is_file():
        check_whole(folder / WEIGHTS)
    elif (folder / INDEX).is_file():
        for name in check_index(folder / INDEX):
            if not (folder / name).is_file():
                raise ModelError(
                    f"The model folder {folder} has no {name}, which {INDEX} names.", "Download it again."
                )
            check_whole(folder / name)


def _check_shape(path: Path) -> None:
    """Check numbers of a model's config that transformers divides by, or replaces where they are 0.

    Raises:
        ModelError: One that has to be positive is not.
    """
    for place, value in leaves(_tree(path) or {}):
        key = place.rpartition(".")[2]
        number = isinstance(value, int | float) and 0 < value < math.inf
        if value is not None and not number and key in POSITIVE:
            raise ModelError(
                f"{path} says {key}={value}, which has to be a positive number.",
                "Give the config.json that belongs to these weights, or download it again.",
            )


def _tree(path: Path) -> dict[str, Any] | None:
    """What a file says that holds a JSON mapping; None for a file that does not, or is not there."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None


def check_index(path: Path) -> list[str]:
    """The weight files that an index names.

    Raises:
        ModelError: It cannot be read, or names a file that is not safetensors or lies elsewhere.
    """
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{path} cannot be read as an index of weights.", "Download it again.") from None
    for name in names:
        if not name.endswith(".safetensors") or Path(name).name != name:
            raise ModelError(f"{path} names {name}, which is not a safetensors file beside it.", NO_PICKLE)
    return names


def weights_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """What a safetensors file says of its tensors (name → dtype, shape, data_offsets), and where their bytes begin.

    Raises:
        ModelError: It does not say so.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: Any = json.loads(file.read(length)) if 0 < length <= path.stat().st_size - 8 else None
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        complete = all(isinstance(entry["data_offsets"][1], int) for entry in tensors.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        complete = False
    if not complete:
        raise ModelError(f"{path} is no safetensors file, or its beginning is cut.", "Get it again.")
    return tensors, 8 + length


def check_whole(path: Path) -> None:
    """Check a safetensors file's size against its header, and the types of its weights.

    Raises:
        ModelError: The header cannot be read, or the file is shorter or longer than it says; or matrices have another
            type than weights, and the config names no quantisation, so that they would be taken as they are.
    """
    size, (tensors, begin) = path.stat().st_size, weights_header(path)
    wanted = begin + max((t["data_offsets"][1] for t in tensors.values()), default=0)
    if size != wanted:
        raise ModelError(
            f"{path} is {'cut' if size < wanted else 'damaged'}: {size:,} bytes where its header says {wanted:,}.",
            "Download or save it again.",
        )
    odd = sorted((name, t["dtype"]) for name, t in tensors.items() if _is_odd(name, t))
    if odd and "quantization_config" not in (_tree(path.parent / CONFIG) or {}):
        name, kind = odd[0]
        raise ModelError(
            f"{path} holds {kind} in place of weights: {name}.",
            "Save the model in float32 or bfloat16; a quantised one needs quantization_config in its config.json.",
        )


def _is_odd(name: str, tensor: Any) -> bool:
    """Whether a tensor of a header is a matrix of no type that weights have: of whole or complex numbers, of bits."""
    return name.endswith(".weight") and len(tensor.get("shape", ())) > 1 and tensor.get("dtype") not in FLOATS


def adapter_settings(folder: Path) -> dict[str, Any]:
    """What an adapter folder's config says.

    Raises:
        ModelError: It cannot be read.
    """
    settings = _tree(folder / ADAPTER)
    if settings is None:
        raise ModelError(f"{folder / ADAPTER} cannot be read.", SAVED)
    return settings


def adapter_base(folder: Path) -> tuple[str, str | None]:
    """The model that an adapter says it was trained on, and that model's revision.

    Raises:
        ModelError: It does not say, or it is an adapter itself.
    """
    settings = adapter_settings(folder)
    if not settings.get("base_model_name_or_path"):
        raise ModelError(
            f"The adapter folder {folder} does not say what model it was trained on.",
            f"Put base_model_name_or_path into its {ADAPTER}.",
        )
    base = str(settings["base_model_name_or_path"])
    if (Path(base) / ADAPTER).is_file():
        raise ModelError(
            f"The adapter folder {folder} names {base} as its base, which is an adapter itself.",
            f"Merge that one into its base, and name the result as base_model_name_or_path in {ADAPTER}.",
        )
    return base, settings.get("revision")


def is_plain_adapter(folder: Path) -> bool:
    """Whether it is a LoRA adapter that stays one: others are folded into their base (`models.lora.put_on`).

    By its files alone; `models.lora.is_plain` asks a loaded model.
    """
    if not (folder / ADAPTER).is_file():
        return False
    settings = adapter_settings(folder)
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        return False
    if settings.get("lora_bias") or changes_base(settings.get("init_lora_weights", True)):
        return False
    names = weights_header(folder / ADAPTER_WEIGHTS)[0]
    return not any("lora_embedding_" in name or ".lm_head." in name or ".lora_" not in name for name in names)


def changes_base(start: Any) -> bool:
    """Whether an adapter that began so stands on other weights than the base's, as PiSSA's do: peft takes its first
    product out of them.
    """
    return isinstance(start, str) and start.lower() not in ("gaussian", "eva", "orthogonal")


def config_folder_of(path: str | Path) -> str | Path:
    """Where the shape of a model is written: `path` itself, or the base of an adapter folder."""
    folder = Path(path)
    return adapter_base(folder)[0] if (folder / ADAPTER).is_file() else path


def _check_adapter(folder: Path) -> None:
    settings = adapter_settings(folder)
    kind = str(settings.get("peft_type"))
    why = "which has no weights to merge" if kind in PROMPTS else ""
    if settings.get("alora_invocation_tokens") is not None:
        kind, why = (
            "aLoRA",
            "whose weights act only from its alora_invocation_tokens on; merged they would act everywhere",
        )
    if why:
        raise ModelError(
            f"The adapter folder {folder} is of the kind {kind}, {why}.",
            "Use a plain LoRA adapter or a full model.",
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = " (adapter_model.bin is pickled)" if (folder / "adapter_model.bin").is_file() else ""
        raise ModelError(
            f"The adapter folder {folder} holds no weights: no {ADAPTER_WEIGHTS}{pickled}.",
            "Save the adapter again with save_pretrained; pickled .bin weights are not read.",
        )
    check_whole(folder / ADAPTER_WEIGHTS)


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER
