"""What every part of the configuration is made of: number types, strictness, a training loop's settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"a number is needed, not {str(value).lower()}")
    return value


# Numbers are finite and no truth values; each key states its own range beside its description.
Integer = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]

# Ranges that many keys share.
Positive = Annotated[Number, Field(gt=0, le=1e6)]
NonNegative = Annotated[Number, Field(ge=0, le=1e6)]
Share = Annotated[Number, Field(ge=0, le=1)]
Whole = Annotated[Integer, Field(ge=0, le=1_000_000)]
Count = Annotated[Integer, Field(ge=1, le=1_000_000)]
TopK = Annotated[Integer, Field(ge=2, le=1_000_000)]  # one token alone leaves no place for the rest
Seed = Annotated[Integer, Field(ge=0, le=2**31 - 1)]


class Strict(BaseModel):
    """Unknown keys are errors; values are not changed after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _beside_defaults(cls, tree: Any) -> Any:
        """One key of a part that has defaults of its own leaves the part's other keys at these."""
        if not isinstance(tree, dict):
            return tree
        defaults = {
            name: field.default.model_dump(exclude_unset=True)
            for name, field in cls.model_fields.items()
            if isinstance(tree.get(name), dict)
            and isinstance(field.default, BaseModel)
            and type(field.default) is field.annotation
        }
        return tree | {name: own | tree[name] for name, own in defaults.items()}


class OptimBase(Strict):
    """What every training loop has: AdamW, a schedule, checkpoints."""

    lr: Number = Field(gt=0, le=10, description="learning rate at its highest")
    micro_batch_size: Count | None = Field(
        None,
        description="rows of one forward pass; gradients of several are summed up to a batch. null: the whole batch",
    )
    weight_decay: Number = Field(0.0, ge=0, le=10, description="weight decay of AdamW")
    adam_beta2: Number = Field(0.999, ge=0, lt=1, description="decay of AdamW's second moment")
    warmup_ratio: Share = Field(0.0, description="share of the steps in which the learning rate rises from 0")
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="learning rate after the warm-up"
    )
    max_grad_norm: Positive = Field(1.0, description="gradients are scaled down to this norm")
    bf16: bool = Field(False, description="forward and backward passes in bfloat16, weights as they are")
    save_every: Count = Field(200, description="optimizer steps between checkpoints")


class Optim(OptimBase):
    """One training loop over a data set. `steps` wins over `epochs` where it is given."""

    epochs: Number = Field(1.0, gt=0, le=10_000, description="passes over the data; parts of one are allowed")
    steps: Annotated[Integer, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="optimizer steps, in place of epochs"
    )
    batch_size: Count = Field(32, description="rows of an optimizer step")

    @model_validator(mode="after")
    def _micro(self) -> Optim:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self


class UnlearningOptim(Optim):
    """How a loss on the forget set is minimised."""

    name: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon: for the matrices of hidden layers, beside AdamW with a third of the rate for the rest; it "
        "needs fewer steps. Not with FSDP2 or ZeRO, which cut matrices up",
    )
    min_steps: Whole = Field(
        0,
        description="optimizer steps at least, where steps is null: a small forget set is cut into smaller batches "
        "than batch_size, and if that does not suffice it is passed over more often than epochs says",
    )


class AnyMethod(Strict):
    """What every method has."""

    name: Text = Field(description="the method's name in tables and folders")
    search: dict[str, str] = Field(
        default_factory=dict,
        description="what `dareu tune` searches: key below method. → choice, range or interval in Hydra's grammar; "
        "changes no run",
    )

    @property
    def optimizer(self) -> str | None:
        """`optim.name`; None for a method that has no such key."""
        return getattr(getattr(self, "optim", None), "name", None)


class MethodBase(AnyMethod):
    """What every method has that reads batches of forget and retain rows."""

    optim: OptimBase = Field(description="how the weights are trained")
    retain_batch_size: Count | None = Field(
        None, description="retain rows beside each update; null: as many as there are forget rows or rollouts"
    )
    evaluate_every: Count | None = Field(
        None,
        description="optimizer steps between evaluations of the validation part, after which the weights that scored "
        "best are taken; null: never, the last ones are taken. Needs evaluation.part=report",
    )
