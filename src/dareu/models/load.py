"""Load and save causal language models: a folder or hub id, with or without a LoRA adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dareu.config import HFConfig, LoraConfig
from dareu.data.render import end_token, set_template
from dareu.errors import ConfigError, ModelError
from dareu.models.cpu_matmul import with_fast_products

ORIGINAL = "original"  # name of the frozen adapter that holds the original model, where LoRA is used
POLICY = "default"


def pick_device(name: str) -> torch.device:
    """`auto` is the first accelerator, else the CPU. `ConfigError` for a device that is not here."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator or torch.device("cpu")
    known = ["cpu", *([accelerator.type] if accelerator else [])]
    count = torch.accelerator.device_count() if accelerator else 0
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in known or (device.type != "cpu" and (device.index or 0) >= count):
        raise ConfigError(
            f"There is no device '{name}' here.", f"Use device=auto, or one of: {', '.join(known)}."
        )
    return device


def load_tokenizer(path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """A fast tokenizer with a pad token; where it has none, the end-of-text token stands in for it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"No tokenizer could be loaded from {path}: {_first_line(error)}.", _hint(path)
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of {path} has no end-of-text token.", "Set one in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_model(
    path: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    trainable: bool = False,
) -> tuple[Any, Any]:
    """(model, tokenizer) from a full checkpoint or from a LoRA adapter folder, whose base is then loaded too.

    Weights are read from safetensors only. The model is in eval mode; an adapter is trainable where asked for. The
    tokenizer is the base's where an adapter folder has none.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(path)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"The model folder {path} holds no weights (no *.safetensors file).",
            "Give a folder written by save_pretrained; pickled .bin weights are not read.",
        )
    is_adapter = (folder / "adapter_config.json").is_file()
    base, revision = _adapter_base(folder) if is_adapter else (path, revision)
    own = not is_adapter or (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(path if own else base, revision=revision, trust_remote_code=trust_remote_code)
    kwargs: dict[str, Any] = {"attn_implementation": attn_implementation} if attn_implementation else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(base),
            revision=revision,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            **kwargs,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"No model could be loaded from {base}: {_first_line(error)}.", _hint(base)
        ) from error
    _agree_on_special_tokens(model, tokenizer)
    with_fast_products(model)
    if is_adapter:
        from peft import PeftModel

        model = _autocast_casts(PeftModel.from_pretrained(model, str(folder), is_trainable=trainable))
    model.to(pick_device(device))
    model.eval()
    return model, tokenizer


def _adapter_base(folder: Path) -> tuple[str, str | None]:
    """The base model that an adapter was trained on, and its revision."""
    try:
        adapter = json.loads((folder / "adapter_config.json").read_text())
    except ValueError:
        adapter = {}
    if not adapter.get("base_model_name_or_path"):
        raise ModelError(
            f"The adapter folder {folder} does not say what model it was trained on.",
            "Put base_model_name_or_path into its adapter_config.json.",
        )
    return adapter["base_model_name_or_path"], adapter.get("revision")


def _agree_on_special_tokens(model: Any, tokenizer: Any) -> None:
    from transformers import GenerationConfig

    model.config.pad_token_id = tokenizer.pad_token_id
    # Settings that a checkpoint ships (temperature, repetition penalty, …) fill whatever a call to `generate`
    # leaves open: they must not leak into greedy decoding or into rollouts.
    shipped = model.generation_config
    ends, end = shipped.eos_token_id, end_token(tokenizer)
    known = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    if end != tokenizer.eos_token_id and end not in known:  # every engine stops where a turn ends
        ends = [*(known or [tokenizer.eos_token_id]), end]
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=shipped.bos_token_id,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _hint(path: str | Path) -> str:
    if Path(path).exists():
        return "Is it a folder written by save_pretrained, with config.json and tokenizer files?"
    return (
        "There is no such local folder; as a hub id it needs the network, or a copy in the local hub cache."
    )


def add_lora(model: Any, config: LoraConfig, revision: str | None = None) -> Any:
    """A trainable adapter on `model`; the head stays free of it (PPO reads the head's weight directly).

    `revision` of the base is noted in the adapter's own config, by which it is loaded again.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    adapter = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return _autocast_casts(get_peft_model(model, adapter, revision=revision))
    except ValueError as error:
        raise ModelError(
            f"No LoRA adapter could be added: {_first_line(error)}.",
            "Name layers of this model in model.lora.target_modules, or leave it at all-linear.",
        ) from error


def _autocast_casts(model: Any) -> Any:
    """Leave the cast of inputs to autocast where it is on.

    An adapter layer turns its input into the adapter's float32 first, which autocast then turns back: a copy of
    every input of every layer, and no other number.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    def cast(x: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
        return x if x is None or torch.is_autocast_enabled(x.device.type) else x.to(dtype)

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer._cast_input_dtype = cast
    return model


def load_base(config: HFConfig, device: str) -> tuple[Any, Any]:
    """The pretrained base that original and retrained model are fine-tuned from, LoRA added where asked for."""
    local = Path(config.path)
    # An adapter names its base by this path: a relative one would be lost in another working directory.
    path = str(local.resolve()) if local.is_dir() else config.path
    model, tokenizer = load_model(
        path,
        revision=config.revision,
        dtype=config.dtype,
        device=device,
        trust_remote_code=config.trust_remote_code,
        attn_implementation=config.attn_implementation,
    )
    if is_peft(model):
        raise ModelError(
            f"{config.path} is an adapter, not a base model.",
            "Give its base as model.path; a model fine-tuned elsewhere goes into original=FOLDER.",
        )
    set_template(tokenizer, config)
    if config.adapter == "lora":
        model = add_lora(model, config.lora, config.revision)
    return model, tokenizer


def checkpoint_activations(model: Any) -> None:
    """Keep only each block's input for the backward pass and compute the rest again: less memory, more time.

    It acts on a model in training mode alone, so neither sampling nor the frozen original change; gradients stay the
    same. Under an adapter the input of the first block has no gradient of its own and is given one.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if is_peft(model):
        model.enable_input_require_grads()


def is_peft(model: Any) -> bool:
    return hasattr(model, "peft_config")


def freeze_original(model: Any) -> Any:
    """The frozen original π_N beside a trainable policy.

    LoRA: a second, frozen adapter on the same base (no second copy of the base); the model itself is returned
    and `reference_logits` switches adapters. Full-parameter: a frozen copy.
    """
    if not is_peft(model):
        import copy

        reference = copy.deepcopy(model).eval()
        reference.requires_grad_(False)
        return reference
    model.add_adapter(ORIGINAL, model.peft_config[POLICY])
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parts = name.split(".")
        if POLICY in parts:  # the last part for embeddings, the last but one for linear layers
            twin = parameters[".".join(ORIGINAL if part == POLICY else part for part in parts)]
            twin.data.copy_(parameter.data)
    model.set_adapter(POLICY)
    _freeze(model, ORIGINAL)
    return model


def _freeze(model: Any, adapter: str) -> None:
    for name, parameter in model.named_parameters():
        if adapter in name.split("."):
            parameter.requires_grad_(False)


def reference_logits(
    policy: Any, reference: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Logits (B, T, V) of the frozen original, dropout off."""
    with as_original(policy, reference) as frozen:
        return frozen(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


@contextmanager
def as_original(policy: Any, reference: Any) -> Iterator[Any]:
    """The frozen original as a model to call, without gradients or dropout: the copy, or the policy with its frozen
    adapter switched on.
    """
    if reference is not policy:
        with torch.no_grad():
            yield reference
        return
    was_training = policy.training
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    policy.eval()
    policy.base_model.set_adapter(ORIGINAL)
    try:
        with torch.no_grad():
            yield policy
    finally:
        policy.base_model.set_adapter(POLICY)
        for name, p in policy.named_parameters():  # switching adapters unfreezes the whole of one
            p.requires_grad_(name in trained)
        policy.train(was_training)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights as safetensors and the tokenizer; of a LoRA model the policy's adapter alone."""
    if is_peft(model):
        model.save_pretrained(folder, selected_adapters=[POLICY], safe_serialization=True)
    else:
        model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
