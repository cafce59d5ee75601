"""An original that is a LoRA adapter: its settings in place of those of `model.lora` that nobody set."""

from pathlib import Path
from typing import Any

from dareu.config import HFConfig, LoraConfig, RunConfig
from dareu.models.files import PEFT, adapter_settings, is_plain_adapter


def with_given_adapter(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The configuration with what the adapter of `original=` has, and a note where keys that were set differ.

    Unlearning goes on with that adapter, whatever `model.lora` says. The retrained model, where one is trained here,
    gets the same settings but for keys that were set.
    """
    model = config.model
    if not config.original or not isinstance(model, HFConfig) or model.adapter != "lora":
        return config, []
    has = settings_of(Path(config.original))
    if has is None:
        return config, []
    chosen = {key: getattr(model.lora, key) for key in sorted(model.lora.model_fields_set)}
    other = {k: v for k, v in chosen.items() if v != has[k] and v != "all-linear"}  # which names no modules
    trained = config.retrain and not config.retrained_folders
    lora = LoraConfig.model_construct(**has | (chosen if trained else {}))
    changed = config.model_copy(update={"model": model.model_copy(update={"lora": lora})})
    if not other:
        return changed, []
    said = ", ".join(f"{key}={has[key]}" for key in other)
    keys = ", ".join(f"model.lora.{key}={value}" for key, value in other.items())
    use = "holds for the retrained model alone" if trained else "is not used"
    return changed, [f"The original is an adapter with {said}, which unlearning goes on with; {keys} {use}."]


def keeps_adapter(config: RunConfig) -> bool:
    """Whether unlearning goes on with the adapter of `original=`, so that the policy without it is the base."""
    model, original = config.model, config.original
    lora = isinstance(model, HFConfig) and model.adapter == "lora"
    return lora and original is not None and is_plain_adapter(Path(original))


def settings_of(folder: Path) -> dict[str, Any] | None:
    """The settings of a plain LoRA adapter, by the names of `LoraConfig`; None for a folder of any other kind.

    Others are folded into their base (`models.lora.put_on`), and a new adapter stands on it.
    """
    if not is_plain_adapter(folder):
        return None
    settings = adapter_settings(folder)
    found = LoraConfig().model_dump()
    found |= {ours: settings[theirs] for ours, theirs in PEFT.items() if settings.get(theirs) is not None}
    if isinstance(found["target_modules"], list):  # peft writes a set
        found["target_modules"] = sorted(found["target_modules"])
    return found
