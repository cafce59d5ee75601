"""Weights in 4 or 8 bits below an adapter, by bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv 2305.14314)."""

from importlib.util import find_spec
from typing import Any

import torch

from dareu.errors import ConfigError


def check_quantization(kind: str | None) -> None:
    """Check that weights can be quantised here.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if kind is not None and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantization={kind} needs bitsandbytes, which is not installed.",
            "pip install 'dareu[quantise]'",
        )


def quantised(kind: str, device: torch.device) -> dict[str, Any]:
    """Arguments of transformers for weights in 4 bits (nf4, with scales in 8 bits) or 8 bits.

    Raises:
        ConfigError: As `check_quantization`.
    """
    check_quantization(kind)
    from transformers import BitsAndBytesConfig

    options: dict[str, Any] = {"load_in_8bit": True}
    if kind == "nf4":
        options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        options["bnb_4bit_compute_dtype"] = torch.bfloat16
    return {"quantization_config": BitsAndBytesConfig(**options), "device_map": {"": device}}


def keep_packing(model: Any) -> None:
    """Leave 4-bit weights in the order in which they were packed.

    On a CPU with bfloat16 instructions bitsandbytes packs them anew at the first pass without gradients. The product of
    that order has no backward pass, so that what is trained after such a pass gets wrong gradients; and it fails where
    a row has fewer weights than a block of scales.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
