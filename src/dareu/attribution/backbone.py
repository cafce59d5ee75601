"""The causal classifier's network: a small Llama from scratch, or a head on a pretrained causal backbone."""

from typing import Any

import torch
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaForTokenClassification,
)

from dareu.config import AttributorConfig, BackboneConfig
from dareu.errors import ModelError, first_line
from dareu.models.checks import check_names
from dareu.models.lora import peft_config
from dareu.models.passes import evaluating
from dareu.models.tiny import llama_shape


def build_backbone(config: AttributorConfig, classes: int, tokenizer: Any | None) -> tuple[Any, Any]:
    """The untrained classifier, in float32, and its tokenizer.

    Without `backbone.path`: a Llama from scratch on the tokens of `tokenizer`, the policy's. With it: that
    model and its own tokenizer, tuned through LoRA or in full. Weights are drawn from torch's global
    generator.
    """
    backbone = config.backbone
    if backbone.path is None:
        if tokenizer is None:
            raise ModelError(
                "A classifier from scratch is built on the policy's tokens, and there is no tokenizer.",
                "Pass the tokenizer, or set attributor.backbone.path.",
            )
        more = {"num_labels": classes, "bos_token_id": None, "eos_token_id": None, "use_cache": False}
        shape = llama_shape(backbone, len(tokenizer), config.max_length, **more)
        return LlamaForTokenClassification(shape), tokenizer
    where: dict[str, Any] = {"revision": backbone.revision, "trust_remote_code": backbone.trust_remote_code}
    try:
        own = AutoTokenizer.from_pretrained(backbone.path, **where)
        model, loading = AutoModelForTokenClassification.from_pretrained(
            backbone.path,
            num_labels=classes,
            dtype=torch.float32,
            use_safetensors=True,  # nothing is unpickled
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **where,
        )
    except Exception as error:  # whatever the libraries raise at what the folder holds
        raise ModelError(
            f"The attributor's backbone '{backbone.path}' cannot be loaded: {first_line(error)}.",
            "Give a causal model in safetensors, of a kind that has a token-classification head.",
        ) from error
    check_names(loading, backbone.path, new=("score", "classifier"))
    _check_causal(model, backbone.path)
    return (_with_lora(model, backbone) if backbone.adapter == "lora" else model), own


def _with_lora(model: Any, backbone: BackboneConfig) -> Any:
    from peft import get_peft_model

    # The task keeps the new head trainable; "all-linear" would adapt it besides.
    head = {"task_type": "TOKEN_CLS", "exclude_modules": ["score", "classifier"]}
    return get_peft_model(model, peft_config(backbone.lora, **head))


def _check_causal(model: Any, path: str) -> None:
    """Check that no later token changes an earlier score: one pass could not score prefixes then.

    Raises:
        ModelError: One does.
    """
    with evaluating(model):
        one, other = (model(input_ids=torch.tensor([[1, 2, 3, last]])).logits[0, :3] for last in (4, 5))
    if not torch.allclose(one, other, atol=1e-4):
        raise ModelError(
            f"The attributor's backbone '{path}' is not causal: later tokens change earlier scores.",
            "Choose a causal language model as attributor.backbone.path.",
        )
