"""Models from elsewhere, as objects in memory or names on a hub, brought into folders that the rest loads from."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

from dareu.errors import ModelError, first_line
from dareu.models.files import ADAPTER
from dareu.models.load import POLICY, has_tokenizer, is_peft, load_tokenizer, writing
from dareu.models.lora import active_adapter, fold, is_plain, name_magnitudes


def fetch(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The folder of a model: `name` itself, or the local copy of that name on the hub, downloaded if need be.

    Raises:
        ModelError: There is neither.
    """
    folder = Path(name).expanduser()
    if folder.exists() or str(name).startswith((".", "/", "~")):
        return folder.resolve()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja", "*.py"]
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=wanted))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ModelError(
            f"There is no model '{name}': no such folder, and no such name within reach "
            f"({first_line(error)}).",
            "Give a folder that save_pretrained wrote, a hub id, or the model object.",
        ) from None


def base_of(model: Any) -> str | None:
    """The base that an adapter, as an object or a folder, says it stands on; None for a full model."""
    if is_peft(model):
        base = model.peft_config[active_adapter(model)].base_model_name_or_path
    elif isinstance(model, str | os.PathLike) and (Path(model) / ADAPTER).is_file():
        base = json.loads((Path(model) / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    else:
        return None
    return str(base) if base else None


def tokenizer_of(model: Any, tokenizer: Any) -> Any:
    """`tokenizer` as an object: itself, loaded from a folder or by name, or the one that lies with the model.

    None where `model` is a folder that holds its own.

    Raises:
        ModelError: There is none.
    """
    if hasattr(tokenizer, "save_pretrained"):
        return tokenizer
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    if isinstance(model, str | os.PathLike):
        if has_tokenizer(Path(model)):
            return None
        beside = base_of(model)
    else:
        beside = str(getattr(model, "name_or_path", "") or "")
    if not beside:
        raise ModelError(
            "No tokenizer was passed, and the model does not name its own.",
            "Give tokenizer=…: an object, a folder or a name.",
        )
    return load_tokenizer(beside)


def check_object(model: Any) -> None:
    """Check that `model` is a causal language model of transformers or peft, with its weights here.

    Raises:
        ModelError: It is not.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is None or getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is no causal language model.", "Load it with AutoModelForCausalLM."
        )
    if any(weight.is_meta for weight in model.parameters()):
        raise ModelError(
            f"{type(model).__name__} has weights that are not in memory (on the device meta).",
            "Load it with from_pretrained outside of torch.device('meta'), without offloading; or give its folder.",
        )


def write_model(model: Any, folder: Path, whole: bool = False) -> None:
    """Save an object without changing it; an adapter alone where its base can be loaded again.

    Otherwise, and with `whole`, the adapter is merged into a copy of the base. An adapter's config is written
    so that the same adapter gives the same bytes in every process.
    """
    with writing(folder):
        if not is_peft(model) or whole or not _stands_alone(model):
            merged(model).save_pretrained(folder, safe_serialization=True)
            return
        name = active_adapter(model)
        model.save_pretrained(folder, selected_adapters=[name], safe_serialization=True)
        if name != POLICY:  # peft puts these one folder down
            for path in (folder / name).iterdir():
                shutil.move(path, folder / path.name)
            (folder / name).rmdir()
        name_magnitudes(folder)
        _canonical(folder / ADAPTER)


def merged(model: Any) -> Any:
    """A copy of a peft model with the adapter in the weights; a model without one as it is."""
    return fold(copy.deepcopy(model), "on the model") if is_peft(model) else model


def _stands_alone(model: Any) -> bool:
    """A plain LoRA adapter (PPO reads the head's weight), on a base that is here or in the hub cache."""
    from huggingface_hub import try_to_load_from_cache

    base = base_of(model)
    if base is None or not is_plain(model):
        return False
    if Path(base).is_dir():
        return (Path(base) / "config.json").is_file()
    try:
        return isinstance(try_to_load_from_cache(base, "config.json"), str)
    except ValueError:  # no name that a hub could have
        return False


def _canonical(path: Path) -> None:
    """Sets come in the order of a process's hashes; a relative base is lost in another working directory."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    base = Path(config["base_model_name_or_path"])
    if base.is_dir():
        config["base_model_name_or_path"] = str(base.resolve())
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
