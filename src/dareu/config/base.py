"""What every part of the configuration is made of: number types, strictness, a training loop's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Unknown keys are errors; values are not changed after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class OptimBase(Strict):
    """What every training loop has."""

    lr: Positive
    micro_batch_size: Count | None = None
    weight_decay: NonNegative = 0.0
    warmup_ratio: Share = 0.0
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    max_grad_norm: Positive = 1.0
    bf16: bool = False
    save_every: Count = Field(200, description="optimizer steps between checkpoints")


class Optim(OptimBase):
    """One training loop over a data set. `steps` wins over `epochs` where it is given."""

    epochs: Positive = 1.0
    steps: Count | None = None
    batch_size: Count = 32

    @model_validator(mode="after")
    def _micro(self) -> Optim:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self


class MethodBase(Strict):
    """`search` is what `dareu tune` looks through: key below `method.` → a choice, range or interval in Hydra's
    override grammar. It changes no run.
    """

    name: str
    optim: OptimBase
    retain_batch_size: Count | None = None
    search: dict[str, str] = Field(default_factory=dict)
