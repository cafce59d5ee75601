"""The blocks of a decoder: their outputs, passes that end after one of them, parameters chosen by module."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from dareu.errors import ConfigError


def find_blocks(model: Any) -> tuple[str, nn.ModuleList]:
    """(module name, list) of the decoder's blocks: the first list as long as the config says.

    Raises:
        ConfigError: There is none.
    """
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ConfigError(
        f"No list of {count} blocks was found in {type(model).__name__}.",
        "This method needs a decoder of blocks like Llama's; choose another one.",
    )


@contextmanager
def cut_after(model: Any, index: int) -> Iterator[None]:
    """Within it the model has no blocks after `index`: what is read at that block costs no pass through the rest."""
    name, blocks = find_blocks(model)
    parent_name, _, own = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, own, blocks[: index + 1])
    try:
        yield
    finally:
        setattr(parent, own, blocks)


def activations(model: Any, inner: Any, index: int, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What block `index` puts out, (B, T, d). `model` is what is called, `inner` the same without a wrapper."""
    with block_outputs(inner) as outputs, cut_after(inner, index):
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **_no_logits(inner))
    return outputs[index]


def _no_logits(model: Any) -> dict[str, int]:
    """Keyword arguments that make the model compute the logits of one position alone, where it can."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}


def parameters_below(model: Any, first: int, last: int, patterns: Sequence[str]) -> list[str]:
    """Names of the parameters in the blocks `first` to `last` whose module matches one of `patterns`.

    A pattern is a module name below a block, such as `mlp.down_proj` or `self_attn.*`; `*` is all of a block. What lies
    inside a module, an adapter's matrices too, belongs to it.

    Raises:
        ConfigError: A pattern matches nothing; the message lists what there is.
    """
    name, blocks = find_blocks(model)
    inside: dict[str, list[str]] = {}  # module below a block → its parameters
    for index in range(first, last + 1):
        for parameter, _ in blocks[index].named_parameters():
            module = parameter.rpartition(".")[0].split(".lora_")[0].removesuffix(".base_layer")
            inside.setdefault(module, []).append(f"{name}.{index}.{parameter}")
    chosen = []
    for pattern in patterns:
        matched = [n for module, names in inside.items() if fnmatchcase(module, pattern) for n in names]
        if not matched:
            raise ConfigError(
                f"No module of the blocks {first} to {last} matches '{pattern}' (method.params.modules).",
                f"They have: {', '.join(inside)}.",
            )
        chosen += matched
    return list(dict.fromkeys(chosen))


def _states(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


@contextmanager
def block_outputs(model: Any) -> Iterator[list[Tensor]]:
    """Within it every pass writes the output of each block, (B, T, d), into the list that it gives, in their order."""
    _, blocks = find_blocks(model)
    outputs: list[Tensor] = [None] * len(blocks)  # type: ignore[list-item]

    def keep(index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[index] = _states(output)

        return hook

    handles = [block.register_forward_hook(keep(i)) for i, block in enumerate(blocks)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def patched_block(model: Any, index: int, where: Tensor, values: Tensor) -> Iterator[None]:
    """Within it block `index` puts out `values` (N, d) at the positions `where` (B, T), bool with N true entries."""

    def patch(module: nn.Module, inputs: Any, output: Any) -> Any:
        states = _states(output).clone()
        states[where] = values.to(states)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    _, blocks = find_blocks(model)
    handle = blocks[index].register_forward_hook(patch)
    try:
        yield
    finally:
        handle.remove()


def matrices_and_others(model: Any) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters: matrices of hidden layers; embeddings, output head, vectors and stacks of matrices."""
    aside = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    aside += [m for m in (model.get_output_embeddings(),) if m is not None]
    kept = {id(p) for m in aside for p in m.parameters(recurse=False)}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in kept]
    taken = {id(p) for p in matrices}
    return matrices, [p for p in trained if id(p) not in taken]


def has_dropout(model: Any) -> bool:
    """Whether training passes drop something at random: by modules, by settings of the model."""
    settings = model.config.get_text_config().to_dict()
    return any("drop" in name and value for name, value in settings.items()) or any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()
    )


def weights_of_a_block(model: Any) -> int:
    """Mean number of weights of a block, the head's share included; embeddings are not counted."""
    looked_up = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    weights = sum(parameter.numel() for parameter in model.parameters()) - looked_up
    return weights // int(model.config.get_text_config().num_hidden_layers)
