"""What is looked at wherever weights are loaded: their names, their sizes, and whether the model is causal."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from dareu.errors import ModelError, first_line, listed

# Parts of a checkpoint that no causal language model has a place for, and that it does not miss: image and audio
# towers, heads for later tokens or for values, buffers of older releases.
BESIDE = re.compile(
    r"vision|visual|audio|image|multi_modal|mm_projector|mtp|v_head|value_head|rotary_emb|masked_bias|attn\.bias|"
    r"attention\.bias$|causal_mask|position_ids|inv_freq"
)
PACKAGES = {"bitsandbytes": "pip install 'dareu[quantise]'"}


def check_names(loading: Mapping[str, Any], path: str | Path, new: Collection[str] = ()) -> None:
    """Check what transformers says of a checkpoint's names (`output_loading_info`).

    Args:
        found: `missing_keys` and `unexpected_keys`.
        path: What was loaded.
        new: Modules that a checkpoint need not have, such as a head that is trained here.

    Raises:
        ModelError: Weights are missing, and would be random; or the checkpoint has weights that find no place.
    """
    missing = sorted(k for k in loading["missing_keys"] if not any(part in k.split(".") for part in new))
    extra = sorted(k for k in loading["unexpected_keys"] if not BESIDE.search(k))
    if new and not missing:  # the old head has no place
        return
    if missing:
        also = f" It has others instead: {listed(extra, 4)}." if extra else ""
        raise ModelError(
            f"{path} lacks {len(missing)} of the model's weights: {listed(missing, 4)}.{also}",
            "Save the bare model with save_pretrained: not one that is wrapped (DDP) or compiled, and with its head.",
        )
    if extra:
        raise ModelError(
            f"{path} has {len(extra)} weights for which its config.json has no place: {listed(extra, 4)}.",
            "Give the config.json that belongs to these weights; merge an adapter before saving.",
        )


def load_failure(error: BaseException, path: str | Path) -> ModelError:
    """What to tell of a model that transformers could not load."""
    text = str(error).strip()
    cause = f"No model could be loaded from {path}: {first_line(error)}."
    if isinstance(error, ImportError):
        known = [cure for package, cure in PACKAGES.items() if package in text.lower()]
        if "flash" in text.lower():
            known = ["Install the package that it names, or set model.attn_implementation=sdpa"]
        return ModelError(cause, f"{known[0] if known else 'Install the package that it names'}.")
    if "attn_implementation" in text:
        return ModelError(cause, "Set model.attn_implementation to sdpa or eager, or leave it out.")
    if "ignore_mismatched_sizes" in text or "size mismatch" in text:
        return ModelError(
            f"No model could be loaded from {path}: its weights have other sizes than its config.json says.",
            "Give the config.json that belongs to these weights, or download the folder again.",
        )
    if "trust_remote_code" in text or "custom code" in text:
        return ModelError(cause, "Read that code; where you trust it, set model.trust_remote_code=true.")
    if "does not recognize this architecture" in text:
        return ModelError(cause, "Install a newer transformers, or correct model_type in config.json.")
    return ModelError(cause, where_from(path))


def where_from(path: str | Path) -> str:
    """What to do where nothing can be read from `path`."""
    if Path(path).exists():
        return "Is it a folder written by save_pretrained, with config.json and tokenizer files?"
    return (
        "There is no such local folder; as a hub id it needs the network (a gated model also `hf auth login`), or a "
        f"copy in the local hub cache. Or `hf download {path} --local-dir FOLDER`, and model.path=FOLDER."
    )


def check_decoder(config: Any, path: str | Path) -> None:
    """Check that a config is of a causal language model.

    Raises:
        ModelError: It is of an encoder, or of an encoder with a decoder.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    text = config.get_text_config()
    encoder = text.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(text, "is_decoder", False)
    both_ways = getattr(text, "use_bidirectional_attention", None) in (True, "all")
    if encoder or both_ways or getattr(config, "is_encoder_decoder", False):
        raise _not_causal(path, text.model_type)


@torch.no_grad()
def check_causal(model: Any, path: str | Path) -> None:
    """Check that no later token changes an earlier prediction, with one pass over two rows of four tokens.

    Raises:
        ModelError: One does: likelihoods would read the answer. Or the predictions are not finite.
    """
    rows = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=model.device)
    one, other = model(input_ids=rows, use_cache=False).logits[:, :3].float()
    if not (one.isfinite().all() and other.isfinite().all()):
        broken = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
        cause = (
            f"holds weights that are not finite: {listed(broken, 4)}"
            if broken
            else "gives no finite prediction"
        )
        raise ModelError(
            f"{path} {cause}.",
            "Download or save it again; float16 may overflow, model.dtype=bfloat16 does not.",
        )
    if one.std() == 0:
        zero = all(not weight.any() for weight in model.parameters() if weight.ndim > 1)
        raise ModelError(
            f"{path} gives every token the same probability: "
            f"{'its weights are zero' if zero else 'it has no weights of a trained model'}.",
            "Download or save it again.",
        )
    if (one - other).abs().max() > 0.05 * one.std():
        raise _not_causal(path, model.config.model_type)


def _not_causal(path: str | Path, kind: str) -> ModelError:
    return ModelError(
        f"{path} ({kind}) is no causal language model: it reads a text in both directions.",
        "Give a decoder, such as a Llama, Qwen, Gemma, Phi or GPT model.",
    )
