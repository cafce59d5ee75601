"""The keys that a method's trainer reads beside its loss: those of `method.params`, typed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from dareu.config import Count, NonNegative, Positive, Strict
from dareu.errors import ConfigError

# Below 1: content keys do not tell 1.0 from 1. The last block is -1.
Depth = Annotated[float, Field(gt=0, lt=1)]


class HiddenSettings(Strict):
    """RMU. `layer`: a block's index, or a fraction of depth; `blocks`: how many blocks up to it are trained;
    `modules`: what of them, as patterns of module names below a block; `coefficient`: c, the length of the target.
    """

    layer: int | Depth
    blocks: Count = 3
    modules: list[str] = Field(["mlp.down_proj"], min_length=1)
    coefficient: Positive


class DualSettings(Strict):
    """PDU. `epsilon`: the retain loss that is allowed; `step_size`: η; `warmup_epochs`: until then α stays as it is."""

    epsilon: NonNegative
    step_size: Positive
    warmup_epochs: NonNegative = 0.0


class AlternatingSettings(Strict):
    """SCRUB. `max_epochs`: epochs that begin with max steps; `alpha`, `gamma`: weights of KL and NLL on retain rows."""

    max_epochs: Annotated[int, Field(ge=0)]
    alpha: NonNegative
    gamma: NonNegative


def read_settings(settings: type[Strict], params: dict[str, Any]) -> Any:
    """The part of `params` that `settings` has fields for; `ConfigError` names the key and what is wrong with it."""
    try:
        return settings.model_validate({k: v for k, v in params.items() if k in settings.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("method.params", *first["loc"][:1]))
        if first["type"] == "missing":
            raise ConfigError(f"'{key}' is not set.", f"Add {key}=… to the command.") from None
        raise ConfigError(
            f"'{key}': {first['msg']} (got {first['input']!r:.80}).",
            "`dareu configs` lists the methods; docs/methods/ says what their keys mean.",
        ) from None
