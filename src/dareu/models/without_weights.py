"""The model's shape and its modules without weights, to check names against before anything is loaded or written."""

from contextlib import suppress
from typing import Any

from dareu.config import HFConfig, RunConfig
from dareu.models.files import config_folder_of


def read_shape(config: RunConfig) -> Any:
    """The config of the model that is unlearned, of an adapter its base's; None where it cannot be read here.

    What is wrong is reported in full where the weights are loaded.
    """
    from transformers import AutoConfig

    path, options = config.original or "", dict[str, Any]()
    if isinstance(config.model, HFConfig):
        options["trust_remote_code"] = config.model.trust_remote_code
        if not path:
            path, options["revision"] = config.model.path, config.model.revision
    try:
        return AutoConfig.from_pretrained(config_folder_of(path), **options)
    except Exception:  # whatever the libraries raise at what the folder holds
        return None


def model_without_weights(config: RunConfig) -> Any:
    """The run's model on the meta device, an adapter left out; None where its shape is not known beforehand."""
    import torch
    from transformers import AutoModelForCausalLM

    from dareu.models.tiny import tiny_shape

    model, trust = config.model, False
    if config.original or isinstance(model, HFConfig):
        shape, trust = read_shape(config), isinstance(model, HFConfig) and model.trust_remote_code
    else:
        shape = tiny_shape(model, model.vocab_size)
    with suppress(Exception), torch.device("meta"):  # reported in full where the weights are loaded
        return None if shape is None else AutoModelForCausalLM.from_config(shape, trust_remote_code=trust)
    return None
