"""What can be checked of a run before it starts: folders, packages, device, method. Nothing is written here."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dareu.config import HFConfig, RunConfig
from dareu.data.corpus import Split
from dareu.data.fictitious_names import Nameless, nameless
from dareu.errors import ConfigError, ModelError, check_folder, require
from dareu.models.files import ADAPTER, CONFIG, adapter_base, check_files, config_folder_of
from dareu.models.same_weights import same_weights
from dareu.runs import ranks
from dareu.runs.files import read_json

SHAPE = ("hidden_size", "n_embd", "num_hidden_layers", "n_layer")


def check_folders(config: RunConfig) -> None:
    """Check the model folders that the configuration names. Loads no heavy library.

    Raises:
        ModelError: A folder is missing, or holds no model; the retrained model would be of another shape than the
            original; or two folders hold one model.
    """
    if isinstance(config.model, HFConfig):
        check_model_folder(config.model.path)
    if config.original:
        check_model_folder(config.original, must_be_local=True)
        _check_base(config, config.original)
    for folder in config.retrained_folders:
        check_model_folder(folder, must_be_local=True)
    _check_differ([folder for folder in (config.original, *config.retrained_folders) if folder])
    if config.attributor.backbone.path:
        check_model_folder(config.attributor.backbone.path)


def _check_differ(folders: Sequence[str]) -> None:
    """Check that the original and the retrained models, in this order, differ: a copy measures nothing."""
    paths = [Path(folder).expanduser() for folder in folders]
    for i, path in enumerate(paths):
        if same := next((folders[j] for j in range(i) if same_weights(paths[j], path)), None):
            raise ModelError(
                f"The retrained model {folders[i]} has the weights of {same}.",
                "Give a model that was trained without the forget set, each one with a seed of its own.",
            )


def _check_base(config: RunConfig, original: str) -> None:
    """Check that the retrained model is of the original's shape, where it is trained here and both can be read."""
    if config.retrained_folders or not config.retrain:
        return
    model = config.model
    if isinstance(model, HFConfig):
        base, named = _shape(model.path), f"the base {model.path}"
    else:
        base, named = (
            {"hidden_size": model.hidden_size, "num_hidden_layers": model.layers},
            "the built-in model",
        )
    own = _shape(original)
    if differ := [key for key in SHAPE if key in base.keys() & own.keys() and base[key] != own[key]]:
        said = ", ".join(f"{key} {own[key]} and {base[key]}" for key in differ)
        raise ModelError(
            f"The original {original} and {named}, of which the retrained model would be made, differ: {said}.",
            "Set model=hf model.path=BASE, the model that the original was fine-tuned from; or retrained=FOLDER, or "
            "retrain=false.",
        )


def _shape(path: str) -> dict[str, Any]:
    """What `config.json` says of a model in a local folder; empty where it cannot be read."""
    file = Path(config_folder_of(path)).expanduser() / CONFIG
    tree = read_json(file) if file.is_file() else {}
    text = tree.get("text_config")
    return text if isinstance(text, dict) else tree


def check_run(config: RunConfig) -> None:
    """Check device, packages and method.

    Raises:
        ConfigError, ModelError: For what would otherwise end the run after minutes of work.
    """
    from dareu.attribution.registry import check_auditors, find_attributor
    from dareu.evaluation.harness import check_harness
    from dareu.methods.registry import method_of
    from dareu.models.load import check_attention, pick_device
    from dareu.models.quantised import check_quantization

    logger = config.logging.report_to
    if logger != "none":
        require(logger, f"logging={logger}", logger)
    if isinstance(config.model, HFConfig):
        check_attention(config.model.attn_implementation)
        check_quantization(config.model.quantization)
    pick_device(config.device)
    find_attributor(config.attributor.name)
    check_attributor(config.attributor.name, config.attributor.params)
    if config.attributor.label_noise and config.attributor.name != "causal":
        raise ConfigError(
            f"attributor.label_noise is of the causal classifier; attributor.name is {config.attributor.name}.",
            "Set attributor.name=causal, or leave the noise out.",
        )
    check_auditors(config.evaluation.attributors or ())
    check_harness(config.evaluation.lm_eval)
    method_of(config.method).validate(config)


def check_attributor(name: str, params: dict[str, Any]) -> None:
    """Check the attributor's parameters, and that what it reads is there.

    Raises:
        ConfigError, ModelError: A parameter is wrong, a package or a model folder is missing.
    """
    from dareu.attribution.registry import KINDS, PACKAGES, check_params

    check_params(name, params)
    models = [str(params[key]) for key in ("base", "path") if params.get(key)] if name in KINDS else []
    for path in models:
        check_model_folder(path)
    if name in PACKAGES and not models:
        require(PACKAGES[name], f"attributor.name={name}", "attributors")


def check_data(config: RunConfig, split: Split) -> None:
    """Check that the forget set fits the method.

    Raises:
        ConfigError, DataError: It does not.
    """
    from dareu.methods.registry import method_of

    method_of(config.method).validate(config, split)


def nameless_of(config: RunConfig, split: Split) -> Nameless | None:
    """The forget samples that a method which replaces names leaves as they are; None for any other method."""
    from dareu.methods.counterfactual import fakes_for
    from dareu.methods.registry import method_of

    if not method_of(config.method).replaces_names(config):
        return None
    made = fakes_for(split, 1, config)
    return replace(nameless(split), owners=tuple(owner for owner, (_, names) in made.items() if not names))


def check_model_folder(path: str, must_be_local: bool = False) -> None:
    """Check that a local folder has a configuration and weights; a name on the hub is not looked up.

    Raises:
        ModelError: It has not, or `must_be_local` and there is no such folder.
    """
    if not (Path(path).exists() or must_be_local or path.startswith((".", "/", "~"))):
        return  # a hub id
    cure = "Give the folder that save_pretrained wrote."
    folder = check_folder(path, cure, ModelError, "model folder")
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        below = folder / "model"
        cure = f"Give {below}." if below.is_dir() else cure
        raise ModelError(f"The model folder {path} has no config.json.", cure)
    check_files(folder)
    if (folder / ADAPTER).is_file():
        base = Path(adapter_base(folder)[0])
        if base.is_dir():
            check_files(base)


def check_processes(config: RunConfig) -> None:
    """Connect the processes of the run, where it has several.

    Raises:
        ConfigError: All of them would use one device.
    """
    if ranks.world_size() == 1:
        return
    from dareu.models.processes import connect

    if re.fullmatch(r"\w+:\d+", config.device):
        raise ConfigError(
            f"device={config.device} would put all {ranks.world_size()} processes on one device.",
            "Leave device=auto: each process takes the device of its number.",
        )
    connect()


@contextmanager
def connected() -> Iterator[None]:
    """Connect the processes that torchrun or `accelerate launch` started; they part where the command ends well.

    After a failure the connection stays until the process has said why, and ends with it.
    """
    from dareu.models.processes import connect, disconnect

    connect()
    yield
    disconnect()


def check_engine(config: RunConfig) -> None:
    """Check that the method trains by the engine that `accelerate launch` was told to use.

    Raises:
        ConfigError: It does not: it samples, or changes weights itself.
    """
    from dareu.methods.registry import method_of
    from dareu.models.processes import engine

    if engine() == "ddp":
        return
    if getattr(config.method, "evaluate_every", None):
        raise ConfigError(
            f"method.evaluate_every keeps whole weights while it trains, and {engine()} cuts them up.",
            "Set method.evaluate_every=null, or launch the run with configs/accelerate/ddp.yaml.",
        )
    if config.method.optimizer == "muon":
        raise ConfigError(
            f"method.optim.name=muon reads whole matrices, and {engine()} cuts them up.",
            "Set method.optim.name=adamw with a quarter of the rate and twice the epochs, or launch with "
            "configs/accelerate/ddp.yaml.",
        )
    if not method_of(config.method).shares_weights():
        raise ConfigError(
            f"method={config.method.name} needs the whole model in each process, and {engine()} cuts it up.",
            "Launch it with configs/accelerate/ddp.yaml; with model.adapter=lora, model.dtype=bfloat16 a large model "
            "fits.",
        )
