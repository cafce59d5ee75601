"""How much memory training will take, by part, estimated from shapes before any weight is loaded.

Weights, gradients and optimizer states are counted; activations follow Korthikanti et al. 2022 ("Reducing Activation
Recomputation in Large Transformer Models", about 17 values a token, layer and unit of width without attention scores).
Under LoRA with dropout each adapted layer keeps its dropped input and the mask beside (SmolLM2-135M, rank 8, saved by
autograd: 17.5 values without dropout, 34.7 with it).
An estimate of tensors alone: libraries and their workspaces come on top. On a CPU a process holds more than its tensors
at a time, `HELD` times as much (SmolLM2-135M with LoRA: 4,372 MiB measured for 2,570 estimated at 8 rows of 96 tokens,
7,930 for 4,500 at 16 rows).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dareu.errors import ConfigError
from dareu.models.layers import matrices_and_others
from dareu.models.upper_blocks import states_bytes

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
STORED = 17  # activations of a block that its backward pass reads, as multiples of tokens × width
HELD = {"cpu": 1.75}
# What an engine cuts up among processes: each holds its part alone (Rajbhandari et al. 2020, arXiv 1910.02054).
CUT: dict[str, tuple[str, ...]] = {
    "ddp": (),
    "zero1": ("optimizer",),
    "zero2": ("gradients", "optimizer"),
    "zero3": ("weights", "gradients", "optimizer"),
    "fsdp2": ("weights", "gradients", "optimizer"),
}
# Bytes of a weight, its share of the scales included (QLoRA: .127 bits).
QUANTISED = {"nf4": 0.52, "int8": 1.0}
MIB = 2**20


@dataclass(frozen=True)
class ModelSize:
    """Counts that an estimate needs.

    `cached`: numbers that one token of one layer leaves in the sampling cache; `dropped`: values that dropout of
    adapters keeps, as multiples of tokens × width × layers; `quantised`: weights in fewer bits, of `packed` bytes each;
    `matrices`: trainable numbers of which Muon keeps one moment and AdamW two.
    """

    parameters: int
    trainable: int
    layers: int
    width: int
    vocabulary: int
    cached: int
    bytes: int = 4
    dropped: float = 0.0
    quantised: int = 0
    packed: float = 0.0
    matrices: int = 0


@dataclass(frozen=True)
class Work:
    """One update. `rows` × `length` tokens pass through the model, `answers` of the `length` tokens have logits;
    `sampled` rows are generated at once; `checkpointing` keeps one value a token, layer and unit of width; `frozen`: a
    second copy of what is trained stays as reference; `engine`: which of `CUT` shares the model among `processes`;
    `muon`: the optimizer of matrices; `base`: the base model is loaded beside the model before training, for teachers.
    `kept`: tokens of which what one block gives is kept all the while (`models.upper_blocks`). Rows are those of one
    process.
    """

    rows: int
    length: int
    answers: int
    sampled: int = 0
    checkpointing: bool = False
    frozen: bool = True
    bf16: bool = False
    processes: int = 1
    engine: str = "ddp"
    muon: bool = False
    base: bool = False
    kept: int = 0


def estimate(size: ModelSize, work: Work, device: str = "cuda") -> dict[str, float]:
    """MiB by part; `total` is the peak on a device of that kind: what stays, and the larger of update and sampling; or
    two models, where the base is loaded before training.
    """
    activation = 2 if work.bf16 else size.bytes
    tokens, counted = work.rows * work.length, work.rows * work.answers
    block = STORED + size.dropped
    stored = size.layers + block if work.checkpointing else size.layers * block
    parts = {
        "weights": (size.parameters - size.quantised) * size.bytes + size.quantised * size.packed,
        "reference": size.trainable * size.bytes if work.frozen else 0,
        "gradients": size.trainable * size.bytes,
        "optimizer": (size.trainable * 2 - (size.matrices if work.muon else 0)) * 4,
        "activations": tokens * size.width * stored * activation,
        "logits": counted * size.vocabulary * 3 * 4,
        "sampling": work.sampled * work.length * size.layers * size.cached * size.bytes,
    }
    parts["kept_states"] = states_bytes(work.kept, size.width, size.bytes)
    parts["base"] = parts["weights"] if work.base else 0
    for name in CUT[work.engine]:  # the base is whole in each process
        parts[name] /= work.processes
    if "weights" in CUT[work.engine]:  # a block whole while it works, and the next one
        parts["weights"] += 2 * size.parameters * size.bytes / size.layers
    update = parts["activations"] + parts["logits"]
    stays = sum(parts[name] for name in ("weights", "reference", "gradients", "optimizer", "kept_states"))
    peak = max(stays + max(update, parts["sampling"]), parts["weights"] + parts["base"])
    parts["total"] = peak * HELD.get(device.partition(":")[0], 1.0)
    return {name: value / MIB for name, value in parts.items()}


def size_of(
    model: Any,
    adapter_rank: int | None,
    dtype: str = "float32",
    dropout: bool = False,
    quantization: str | None = None,
) -> ModelSize:
    """Sizes of a causal language model (on any device, meta included).

    `adapter_rank`: LoRA of that rank on every linear layer but the head is what is trained; None: every weight.
    `dropout`: the adapters drop some of their input. `quantization`: nf4 or int8, of every linear layer but the head.
    """
    config = model.config.get_text_config()
    parameters = sum(p.numel() for p in model.parameters())
    trainable, dropped, quantised = parameters, 0.0, 0
    matrices = sum(p.numel() for p in matrices_and_others(model)[0])
    if adapter_rank is not None:
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        trainable = sum(adapter_rank * (m.in_features + m.out_features) for m in linear)
        matrices = trainable
        parameters += trainable
        quantised = sum(m.weight.numel() for m in linear) if quantization else 0
        if dropout:
            read = sum(m.in_features for m in linear)
            dropped = 2 * read / (config.num_hidden_layers * config.hidden_size)
    return ModelSize(
        parameters=parameters,
        trainable=trainable,
        layers=int(config.num_hidden_layers),
        width=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
        cached=_cached(config),
        bytes=BYTES[dtype],
        dropped=dropped,
        quantised=quantised,
        packed=QUANTISED.get(quantization or "", 0.0),
        matrices=matrices,
    )


def _cached(config: Any) -> int:
    """Keys and values that a layer keeps of a token: the mean of layers that differ, 0 without attention."""
    layers = list(getattr(config, "per_layer_config", None) or [config])
    kept = 0
    for layer in layers:
        heads = getattr(layer, "num_attention_heads", None) or 0
        width = getattr(layer, "head_dim", None) or (layer.hidden_size // heads if heads else 0)
        kept += 2 * (getattr(layer, "num_key_value_heads", None) or heads) * width
    return kept // len(layers)


def available_mib(device: str) -> float | None:
    """Memory of the device that is free (CUDA) or of the machine (CPU), in MiB; None where it is not known."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0]) / MIB
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB
    except (ValueError, OSError, AttributeError):
        return None


def check_memory(
    parts: Mapping[str, float], available: float | None, keys: Mapping[str, Sequence[str]]
) -> str | None:
    """A warning where the estimate exceeds what is available; None where it fits or nothing is known.

    Args:
        parts: What `estimate` gives.
        available: MiB; None: not known.
        keys: Settings that make `weights` (all that stays), `activations`, `logits`, `sampling` or
            `kept_states` smaller.

    Raises:
        ConfigError: What stays alone does not fit: weights with reference, gradients and optimizer, or with the base
            that is loaded beside them; no batch size can mend that.
    """
    if available is None or parts["total"] <= available:
        return None
    trained = sum(parts[name] for name in ("reference", "gradients", "optimizer"))
    beside = "reference, gradients and optimizer" if trained >= parts["base"] else "a base beside them"
    stays = parts["weights"] + max(trained, parts["base"])
    if stays > available:
        raise ConfigError(
            f"The model does not fit: weights, {beside} take about {stays / 1024:.1f} GiB, "
            f"and {available / 1024:.1f} GiB are available.",
            f"Set {', '.join(keys['weights'])}, or take a smaller model."
            if keys["weights"]
            else "Take a smaller model or a larger device.",
        )
    largest = max(("activations", "logits", "sampling", "kept_states"), key=lambda name: parts[name])
    return (
        f"The run may not fit into memory: about {parts['total'] / 1024:.1f} GiB are needed and "
        f"{available / 1024:.1f} GiB available, most of it for {largest}. Keys to lower it: "
        f"{', '.join(keys[largest])}."
    )


def accelerator_used() -> tuple[str | None, float | None]:
    """(name of the CUDA device this process has computed on, the most of its memory in tensors so far in MiB).

    The fullest one where there were several; (None, None) where nothing was computed on any. The context and
    libraries' own workspaces are not counted. No device is woken by asking.
    """
    if not torch.cuda.is_initialized():
        return None, None
    peak, index = max((torch.cuda.max_memory_allocated(i), i) for i in range(torch.cuda.device_count()))
    return (torch.cuda.get_device_name(index), peak / 2**20) if peak else (None, None)


def reset_accelerator_peak() -> None:
    """From here on `accelerator_used` counts anew."""
    if torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)
