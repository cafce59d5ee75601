"""Weights rounded to few bits: unlearning that moved them little may be rounded away (arXiv 2410.16454)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dareu.evaluation.probes.base import Gap, ProbeInput, ProbeResult, needs_forget
from dareu.evaluation.probes.knowledge import knowledge
from dareu.evaluation.subject import Subject
from dareu.models.merge import merged

GROUP = 128  # weights that share a scale at 4 bits


def round_to_nearest(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """The nearest weights that `bits` bits hold, symmetric around 0: s · clip(round(w / s), −q, q), q = 2^(bits−1) − 1.

    The scale s is max|w| / q over each row, or over each `group` of neighbours within a row. At most s/2 from the
    weight. What is all 0 stays so.

    Args:
        weight: (rows, columns), rows the output features.
        bits: 2 to 16.
        group: columns that share a scale; the last group may be smaller. None: the whole row.

    Raises:
        ValueError: for another number of bits, or a weight that is no matrix.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits must be 2 to 16, not {bits}")
    if weight.dim() != 2:
        raise ValueError(f"a weight of the shape {tuple(weight.shape)} is no matrix")
    rows, columns = weight.shape
    width = min(group or columns, columns) or 1
    padded = nn.functional.pad(weight.float(), (0, -columns % width))
    grouped = padded.view(rows, -1, width)
    most = 2 ** (bits - 1) - 1
    scale = grouped.abs().amax(-1, keepdim=True) / most
    levels = (grouped / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().clamp(-most, most)
    return (levels * scale).view(rows, -1)[:, :columns].to(weight.dtype)


@contextmanager
def changed_weights(model: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within it the weight of every linear layer but the head is what `change` makes of it; afterwards the very same
    weights are back. An adapter is folded into them first. Embeddings and norms stay, as in common practice.

    Raises:
        Gap: The weights lie in few bits already, so that an adapter cannot be folded into them.
    """
    from transformers.pytorch_utils import Conv1D

    with merged(model), torch.no_grad():
        head = model.get_output_embeddings()
        layers = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head and "lora_" not in name
        ]
        if not all(layer.weight.is_floating_point() for layer in layers):
            raise Gap(
                "The probes by quantisation round weights that have all their bits; model.quantization has rounded "
                "these already. Export the run (`dareu export RUN`) and evaluate the folder that this makes."
            )
        saved = [layer.weight.detach().clone() for layer in layers]
        try:
            for layer in layers:
                if isinstance(layer, Conv1D):  # (in, out), the other way round
                    layer.weight.copy_(change(layer.weight.t().contiguous()).t())
                else:
                    layer.weight.copy_(change(layer.weight))
            yield
        finally:
            for layer, weight in zip(layers, saved, strict=True):
                layer.weight.copy_(weight)


def _probe(subject: Subject, inputs: ProbeInput, change: Callable[[Tensor], Tensor]) -> ProbeResult:
    needs_forget(inputs, "The probe by quantisation")
    with changed_weights(subject.model, change):
        samples = knowledge(subject, inputs.split.forget)
    return ProbeResult(samples)


def int8(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """8 bits, a scale for each row."""
    return _probe(subject, inputs, lambda weight: round_to_nearest(weight, 8))


def int4(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """4 bits, a scale for each 128 weights of a row."""
    return _probe(subject, inputs, lambda weight: round_to_nearest(weight, 4, GROUP))


def nf4(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """The 4-bit NormalFloat type of QLoRA (arXiv 2305.14314), by bitsandbytes, in blocks of 64 weights."""
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except ImportError:
        raise Gap(
            "The probe by NF4 needs bitsandbytes, which is not installed. Install it: pip install 'dareu[quantise]'."
        ) from None

    def change(weight: Tensor) -> Tensor:
        packed, state = quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4")
        back: Tensor = dequantize_4bit(packed, state)
        return back.to(weight.dtype)

    return _probe(subject, inputs, change)
