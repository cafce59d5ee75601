"""Load and save causal language models: a folder or hub id, with or without a LoRA adapter."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dareu.config import HFConfig, LoraConfig
from dareu.data.render import end_token, set_template
from dareu.errors import ConfigError, ModelError, RunError, first_line
from dareu.models.checks import check_causal, check_decoder, check_names, load_failure, where_from
from dareu.models.cpu_matmul import with_fast_products
from dareu.models.files import ADAPTER, CONFIG, INDEX, adapter_base, check_files, check_index
from dareu.models.lora import name_magnitudes, peft_config, put_on
from dareu.models.processes import full_weights
from dareu.models.quantised import keep_packing, quantised
from dareu.runs.files import read_json, writing_to
from dareu.runs.ranks import is_main

ORIGINAL = "original"  # name of the frozen adapter that holds the original model, where LoRA is used
POLICY = "default"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def pick_device(name: str) -> torch.device:
    """`auto` is the first accelerator, else the CPU.

    Raises:
        ConfigError: The device is not here.
    """
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
    """A fast tokenizer with a pad token; where it has none, the end-of-text token stands in for it.

    An adapter's folder without one, as peft writes it, takes its base's.

    Raises:
        ModelError: There is none, it has no end-of-text token, or it does not tell where in a text its tokens lie.
    """
    from transformers import AutoTokenizer

    if (Path(path) / ADAPTER).is_file() and not has_tokenizer(Path(path)):
        path, revision = adapter_base(Path(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # whatever the libraries raise at what the folder holds
        raise ModelError(
            f"No tokenizer could be loaded from {path}: {first_line(error)}.", where_from(path)
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"The tokenizer of {path} does not tell where in a text its tokens lie (it is not a fast one).",
            "Save it as a fast one: a tokenizer.json beside the model.",
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of {path} has no end-of-text token.", "Set one in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    if getattr(tokenizer.backend_tokenizer.model, "dropout", None):
        tokenizer.backend_tokenizer.model.dropout = None  # with it a text has other tokens each time
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in that folder."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def load_model(
    path: str | Path,
    *,
    base: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    quantization: str | None = None,
    trainable: bool = False,
) -> tuple[Any, Any]:
    """(model, tokenizer) from a full checkpoint or from an adapter folder, whose base is then loaded too.

    Weights are read from safetensors only. The model is in eval mode; an adapter is trainable where asked for. The
    tokenizer is the base's where an adapter folder has none.

    Args:
        base: The base of an adapter, in place of the one that its folder names, with the same weights.

    Raises:
        ModelError: Something of it cannot be loaded, is missing, finds no place, or is no causal language model.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(path)
    if folder.is_dir():
        check_files(folder)
    is_adapter = (folder / ADAPTER).is_file()
    named, revision = adapter_base(folder) if is_adapter else (str(path), revision)
    base = base if base and is_adapter else named
    if Path(base).is_dir():
        check_files(Path(base))
    else:
        _check_hub_index(base, revision)
    own = not is_adapter or has_tokenizer(folder)
    tokenizer = load_tokenizer(path if own else base, revision=revision, trust_remote_code=trust_remote_code)
    kwargs: dict[str, Any] = {"attn_implementation": attn_implementation} if attn_implementation else {}
    if quantization:
        kwargs |= quantised(quantization, pick_device(device))
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            base,
            revision=revision,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **kwargs,
        )
    except Exception as error:  # whatever the libraries raise at what the folder holds
        raise load_failure(error, base) from error
    keep_packing(model)
    check_decoder(model.config, base)
    check_names(loading, base)
    _agree_on_special_tokens(model, tokenizer, path)
    if is_adapter:
        model = put_on(model, folder, trainable)
        if is_peft(model):
            _autocast_casts(model)
        _suppress_unknown(model, tokenizer)  # an adapter may have resized the embedding
    _check_tokens(int(model.get_input_embeddings().weight.shape[0]), tokenizer, path)
    with_fast_products(model)
    contiguous_head(model)
    if not quantization:
        model.to(pick_device(device))
    model.eval()
    check_causal(model, base)
    return model, tokenizer


def contiguous_head(model: Any) -> None:
    """The head gets its input as one block of memory.

    Of the last position alone (the first step of a generation) the hidden states (B, 1, d) are a view with gaps. torch
    then copies a head that is not trained, as below an adapter, B times: 900 MB for 16 rows of a vocabulary of 49,152.
    """
    head = model.get_output_embeddings()
    if isinstance(head, torch.nn.Module):
        head.register_forward_pre_hook(_as_one_block)


def _as_one_block(head: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0].contiguous(), *given[1:])


def check_attention(kind: str | None) -> None:
    """Check that an implementation of attention has the package that it needs.

    Raises:
        ConfigError: The package is not installed.
    """
    if kind == "flash_attention_2" and find_spec("flash_attn") is None:
        raise ConfigError(
            f"model.attn_implementation={kind} needs the package flash-attn, which is not installed.",
            "pip install flash-attn, or set model.attn_implementation=sdpa.",
        )


def _check_hub_index(name: str, revision: str | None) -> None:
    """Check what the index of a model on the hub names, before weights are downloaded."""
    from transformers.utils import cached_file

    try:
        path = cached_file(
            name,
            INDEX,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # reported in full where the weights are loaded
        return
    if path is not None:
        check_index(Path(path))


def _agree_on_special_tokens(model: Any, tokenizer: Any, path: str | Path) -> None:
    from transformers import GenerationConfig

    rows = int(model.get_input_embeddings().weight.shape[0])
    if tokenizer.eos_token_id >= rows and not (Path(path) / ADAPTER).is_file():
        raise ModelError(
            f"The tokenizer's end-of-text token has the id {tokenizer.eos_token_id}, and the embedding of {path} has "
            f"{rows} rows.",
            "Give the tokenizer that belongs to the model, or resize the embedding and save the model again.",
        )
    if tokenizer.pad_token_id >= rows:  # added to the tokenizer alone; pads are masked, so any id will do
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    # Settings that a checkpoint ships (temperature, repetition penalty, …) fill whatever a call to `generate`
    # leaves open: they must not leak into greedy decoding or into rollouts. `save_model` writes them back.
    shipped = model.generation_config
    model.shipped_generation = shipped
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
    _suppress_unknown(model, tokenizer)


def check_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Check a tokenizer by what the model's `config.json` says of its embedding, before any weights are read.

    Adapters, models of custom code and configurations without a size are left to `load_model`.

    Raises:
        ModelError: Tokens that were not added have no row in the embedding.
    """
    if (folder / ADAPTER).is_file() or not (folder / CONFIG).is_file():
        return
    tree = read_json(folder / CONFIG)
    trees = [one for one in (tree, tree.get("text_config")) if isinstance(one, dict)]
    sizes = [size for one in trees for key, size in one.items() if key.endswith("vocab_size")]
    if sizes and all(isinstance(size, int) for size in sizes) and "auto_map" not in tree:
        _check_tokens(max(sizes), tokenizer, folder)


def _check_tokens(rows: int, tokenizer: Any, path: str | Path) -> None:
    """Check that each token has one of the embedding's rows; added ones may have none: few texts hold them.

    Raises:
        ModelError: Others have none.
    """
    added = tokenizer.get_added_vocab()
    outside = sum(1 for token, i in tokenizer.get_vocab().items() if i >= rows and token not in added)
    if outside:
        raise ModelError(
            f"The tokenizer of {path} does not fit the model: {outside} of its {len(tokenizer)} tokens have no row "
            f"in the embedding of {rows}.",
            "Give the tokenizer that belongs to the model.",
        )


def _suppress_unknown(model: Any, tokenizer: Any) -> None:
    """Never sample an id that no token has: vocabularies of Qwen, Phi and others are padded to a round number."""
    size = int(model.get_output_embeddings().weight.shape[0])
    unknown = sorted(set(range(size)) - set(tokenizer.get_vocab().values()))
    model.generation_config.suppress_tokens = unknown or None


def add_lora(model: Any, config: LoraConfig, revision: str | None = None) -> Any:
    """A trainable adapter on `model`; the head stays free of it (PPO reads the head's weight directly).

    `revision` of the base is stored in the adapter's own config, by which it is loaded again.
    """
    from peft import get_peft_model

    adapter = peft_config(config, task_type="CAUSAL_LM")
    try:
        return _autocast_casts(get_peft_model(model, adapter, revision=revision))
    except ValueError as error:
        if "lora_dropout" in str(error):
            raise ModelError(
                "The model is a mixture of experts, whose experts are single tensors: an adapter on them has no "
                "dropout.",
                "Set model.lora.dropout=0, or name layers other than the experts in model.lora.target_modules.",
            ) from error
        raise ModelError(
            f"No LoRA adapter could be added: {first_line(error)}.",
            "Name layers of this model in model.lora.target_modules, or set model.adapter=none."
            if config.target_modules == "all-linear"
            else "Name layers of this model in model.lora.target_modules, or leave it at all-linear.",
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
    """The pretrained base that original and retrained model are fine-tuned from, with LoRA where configured."""
    local = Path(config.path)
    # An adapter names its base by this path: a relative one would be lost in another working directory.
    path = str(local.resolve()) if local.is_dir() else config.path
    read = {"revision", "dtype", "trust_remote_code", "attn_implementation", "quantization"}
    model, tokenizer = load_model(path, device=device, **config.model_dump(include=read))
    if is_peft(model):
        raise ModelError(
            f"{config.path} is an adapter, not a base model.",
            "Give its base as model.path; a model fine-tuned elsewhere goes into original=FOLDER.",
        )
    set_template(tokenizer, config)
    if config.adapter == "lora":
        model = add_lora(model, config.lora, None if local.is_dir() else config.revision)
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
        return copy.deepcopy(model).eval().requires_grad_(False)
    # PiSSA and its like take from the base what a new adapter begins with; this one gets the policy's weights.
    model.add_adapter(ORIGINAL, replace(model.peft_config[POLICY], init_lora_weights=True))
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        parts = name.split(".")
        if POLICY in parts:  # the last part for embeddings, the last but one for linear layers
            twin = parameters[".".join(ORIGINAL if part == POLICY else part for part in parts)]
            twin.data.copy_(parameter.data)
    model.set_adapter(POLICY)
    for name, parameter in model.named_parameters():
        if ORIGINAL in name.split("."):
            parameter.requires_grad_(False)
    return model


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
    """Weights as safetensors, the tokenizer, and the generation settings that the checkpoint came with; of a LoRA model
    the policy's adapter alone. Of several processes the first one writes.

    Raises:
        RunError: It cannot be written, as where the disk is full.
    """
    weights = full_weights(model)
    if not is_main():
        return
    options: dict[str, Any] = {"safe_serialization": True} | ({"state_dict": weights} if weights else {})
    if is_peft(model):
        options["selected_adapters"] = [POLICY]
    with writing(folder):
        model.save_pretrained(folder, **options)
        if is_peft(model):
            name_magnitudes(Path(folder))
        tokenizer.save_pretrained(folder)
        bare = model.get_base_model() if is_peft(model) else model
        if (shipped := getattr(bare, "shipped_generation", None)) is not None:
            text = shipped.to_json_string(use_diff=True)
            (Path(folder) / "generation_config.json").write_text(text, encoding="utf-8")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within it what cannot be written to `folder` is one message. safetensors has an error of its own for it."""
    with writing_to(folder):
        try:
            yield
        except SafetensorError as error:
            raise RunError(
                f"The weights cannot be written to {folder}: {first_line(error)}.",
                "Make room, or choose another cache_dir; the same command goes on from there.",
            ) from error
