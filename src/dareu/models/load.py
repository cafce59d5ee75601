"""Load and save causal language models: a folder or hub id, with or without a LoRA adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dareu.config import HFConfig, LoraConfig
from dareu.errors import ModelError

ORIGINAL = "original"  # name of the frozen adapter that holds the original model, where LoRA is used
POLICY = "default"


def pick_device(name: str) -> torch.device:
    """`auto` is the first accelerator, else the CPU."""
    if name != "auto":
        return torch.device(name)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


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

    Weights are read from safetensors only. The model is in eval mode; an adapter is trainable where asked for.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(path)
    tokenizer = load_tokenizer(path, revision=revision, trust_remote_code=trust_remote_code)
    is_adapter = (folder / "adapter_config.json").is_file()
    base: str | Path = path
    if is_adapter:
        adapter = json.loads((folder / "adapter_config.json").read_text())
        base, revision = adapter["base_model_name_or_path"], adapter.get("revision")
    elif folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"The model folder {path} holds no weights (no *.safetensors file).",
            "Give a folder written by save_pretrained; pickled .bin weights are not read.",
        )
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
    if is_adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    _agree_on_special_tokens(model, tokenizer)
    model.to(pick_device(device))
    model.eval()
    return model, tokenizer


def _agree_on_special_tokens(model: Any, tokenizer: Any) -> None:
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # Sampling settings that a checkpoint ships must not leak into greedy decoding or into rollouts.
    for key in ("temperature", "top_p", "top_k"):
        setattr(model.generation_config, key, None)
    model.generation_config.do_sample = False


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _hint(path: str | Path) -> str:
    if Path(path).exists():
        return "Is it a folder written by save_pretrained, with config.json and tokenizer files?"
    return (
        "There is no such local folder; as a hub id it needs the network, or a copy in the local hub cache."
    )


def add_lora(model: Any, config: LoraConfig) -> Any:
    """A trainable adapter on `model`; the head stays free of it (PPO reads the head's weight directly)."""
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    return get_peft_model(
        model,
        PeftLoraConfig(
            r=config.r,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=config.target_modules,
            task_type="CAUSAL_LM",
        ),
    )


def load_base(config: HFConfig, device: str) -> tuple[Any, Any]:
    """The pretrained base that original and retrained model are fine-tuned from, LoRA added where asked for."""
    model, tokenizer = load_model(
        config.path,
        revision=config.revision,
        dtype=config.dtype,
        device=device,
        trust_remote_code=config.trust_remote_code,
        attn_implementation=config.attn_implementation,
    )
    if config.chat_template == "none":
        tokenizer.chat_template = None
    if config.adapter == "lora":
        model = add_lora(model, config.lora)
    return model, tokenizer


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
    for name, parameter in list(model.named_parameters()):
        if f".{POLICY}." in name:
            twin = model.get_parameter(name.replace(f".{POLICY}.", f".{ORIGINAL}."))
            twin.data.copy_(parameter.data)
            twin.requires_grad_(False)
    model.set_adapter(POLICY)
    return model


@torch.no_grad()
def reference_logits(
    policy: Any, reference: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Logits (B, T, V) of the frozen original, dropout off."""
    if reference is not policy:
        return reference(input_ids=input_ids, attention_mask=attention_mask).logits
    was_training = policy.training
    policy.eval()
    policy.base_model.set_adapter(ORIGINAL)
    try:
        return policy(input_ids=input_ids, attention_mask=attention_mask).logits
    finally:
        policy.base_model.set_adapter(POLICY)
        for name, parameter in policy.named_parameters():
            if f".{ORIGINAL}." in name:
                parameter.requires_grad_(False)
        policy.train(was_training)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Weights as safetensors and the tokenizer; of a LoRA model the policy's adapter alone."""
    if is_peft(model):
        model.save_pretrained(folder, selected_adapters=[POLICY], safe_serialization=True)
    else:
        model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
