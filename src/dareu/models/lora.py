"""Adapters as files: from elsewhere, put on their base, and written so that others can read them."""

from pathlib import Path
from typing import Any

from dareu.config import LoraConfig
from dareu.errors import ModelError, first_line, listed
from dareu.models.files import ADAPTER_WEIGHTS, PEFT, adapter_settings, changes_base


def peft_config(lora: LoraConfig, **more: Any) -> Any:
    """The settings of an adapter as peft takes them; `more`: its own keys."""
    import peft

    return peft.LoraConfig(**{PEFT[key]: value for key, value in lora.model_dump().items()}, **more)


def put_on(model: Any, folder: Path, trainable: bool = False) -> Any:
    """`model` with the adapter of `folder` on it.

    The embedding takes the adapter's number of rows, where that was resized. A plain LoRA adapter stays one; of every
    other kind (biases, whole layers, head or embedding, IA3, AdaLoRA) the weights are folded into the base, since a
    second frozen copy beside it and folding for a while are made for plain ones alone.

    Raises:
        ModelError: The adapter does not belong to this base, with the names that find no place.
    """
    from peft import PeftModel, PeftType
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    kind = adapter_settings(folder).get("peft_type")
    if kind not in set(PeftType):
        raise ModelError(
            f"The adapter {folder} is of the kind {kind}, which this version of peft does not know.",
            "Install a newer peft, or use a LoRA adapter.",
        )
    _resize(model, folder)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        loading = set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))
    except Exception as error:  # whatever the libraries raise at what the folder holds
        lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
        reason = lines[1] if len(lines) > 1 and lines[0].startswith("Error(s)") else (lines or ["?"])[0]
        raise _wrong_base(folder, model, reason) from error
    own = (getattr(adapted.base_model, "prefix", "lora_"), "modules_to_save")
    missing = sorted(k for k in loading.missing_keys if any(part in k for part in own))
    # A resized embedding that is trained as a whole stands in the file twice, once under its wrapper's name.
    extra = sorted(k for k in loading.unexpected_keys if not k.endswith(".modules_to_save.weight"))
    if missing or extra:
        what = [f"{listed(extra, 4)} find no place"] if extra else []
        what += [f"{listed(missing, 4)} are missing"] if missing else []
        raise _wrong_base(folder, model, "; ".join(what))
    return adapted if is_plain(adapted) else fold(adapted, folder)


def name_magnitudes(folder: Path) -> None:
    """Name the magnitudes of a DoRA adapter so that both peft and transformers find them.

    peft 0.21 writes `….lora_magnitude_vector`. transformers 5.23 reads `….lora_magnitude_vector.weight` alone and
    starts what it does not find anew, with a warning; peft reads both.
    """
    from safetensors.torch import load_file, save_file

    path = folder / ADAPTER_WEIGHTS
    weights = load_file(path)
    bare = [name for name in weights if name.endswith(".lora_magnitude_vector")]
    if bare:  # copies: older releases of safetensors map the file, which is written anew here
        named = {f"{name}.weight" if name in bare else name: w.clone() for name, w in weights.items()}
        save_file(named, path, metadata={"format": "pt"})


def is_plain(model: Any) -> bool:
    """Whether it is LoRA (DoRA and rsLoRA too) on layers between embedding and head, and trains nothing else.

    Not biases, whole layers, or single tokens of the embedding; and it stands on the base's own weights.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    config = model.peft_config[active_adapter(model)]
    if config.peft_type != "LORA" or config.bias != "none" or config.lora_bias:
        return False
    if changes_base(config.init_lora_weights):
        return False
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return not any(isinstance(end, BaseTunerLayer) for end in ends) and not any(
        isinstance(module, AuxiliaryTrainingWrapper) for module in model.modules()
    )


def fold(model: Any, where: object) -> Any:
    """A peft model's active adapter in the weights of its base, in place; the base alone is returned.

    An embedding that is tied to the head gets weights of its own first: an adapter on one of them is none on the other.
    """
    if not hasattr(model.base_model, "merge_and_unload"):
        kind = model.peft_config[active_adapter(model)].peft_type
        raise ModelError(
            f"The adapter {where} is of the kind {str(getattr(kind, 'value', kind))}, which has no weights to merge.",
            "Use a LoRA adapter or a full model.",
        )
    untie(model)
    try:
        return model.base_model.merge_and_unload(adapter_names=[active_adapter(model)])
    except RuntimeError as error:  # such as a bias for which the base's layer has no place
        raise ModelError(
            f"The adapter {where} cannot be merged: {first_line(error)}.",
            "Use a LoRA adapter or a full model.",
        ) from error


def untie(model: Any) -> None:
    """Give embedding and head weights of their own where they share them and an adapter is on one of them."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if None in ends or not any(isinstance(end, BaseTunerLayer) for end in ends):
        return
    embedding, head = (end.get_base_layer() if isinstance(end, BaseTunerLayer) else end for end in ends)
    if embedding.weight is head.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
        for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
            config.tie_word_embeddings = False


def active_adapter(model: Any) -> str:
    """The name of a peft model's active adapter, the first where there are several."""
    active = model.active_adapter
    return active if isinstance(active, str) else active[0]


def _resize(model: Any, folder: Path) -> None:
    """Rows of the embedding as the adapter has them, where it holds or adapts embedding or head."""
    from safetensors import safe_open

    names = {
        module: name
        for name, module in model.named_modules()
        if module is model.get_input_embeddings() or module is model.get_output_embeddings()
    }
    axes = {".weight": 0, ".lora_B.weight": 0, ".lora_embedding_A": 1}
    with safe_open(str(folder / ADAPTER_WEIGHTS), framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  # no dict
            for name in names.values():
                for end, axis in axes.items():
                    if key.removeprefix("base_model.model.") == name + end:
                        rows = int(file.get_slice(key).get_shape()[axis])
                        if rows != model.get_input_embeddings().weight.shape[0]:
                            model.resize_token_embeddings(rows, mean_resizing=False)


def _wrong_base(folder: Path, model: Any, reason: str) -> ModelError:
    return ModelError(
        f"The adapter {folder} does not fit its base {model.name_or_path}: {reason}.",
        "Name the base that it was trained on as base_model_name_or_path in its adapter_config.json.",
    )
