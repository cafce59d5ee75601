"""The model's modules without weights, to check names against before anything is loaded or written."""

from contextlib import suppress
from typing import Any

from dareu.config import HFConfig, RunConfig
from dareu.models.files import config_folder_of


def model_without_weights(config: RunConfig) -> Any:
    """The run's model on the meta device, an adapter left out; None where its shape is not known beforehand."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model = config.model
    trust = isinstance(model, HFConfig) and model.trust_remote_code
    if config.original or isinstance(model, HFConfig):
        path = config_folder_of(config.original or model.path)  # type: ignore[union-attr]
        with suppress(OSError, ValueError):  # reported in full where the weights are loaded
            shape = AutoConfig.from_pretrained(path, trust_remote_code=trust)
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(shape, trust_remote_code=trust)
        return None
    from dareu.models.tiny import tiny_shape

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(tiny_shape(model, model.vocab_size))
