"""Methods that are a loss, and those that are a procedure; `MethodConfig` is any method."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dareu.config.base import (
    AnyMethod,
    Count,
    MethodBase,
    NonNegative,
    Number,
    Share,
    Strict,
    Text,
    UnlearningOptim,
    Whole,
)
from dareu.config.rl import DareUConfig


class AlternatesConfig(Strict):
    """Alternate answers that the original model gives to a forget prompt (AltPO).

    A sampled answer that is unfinished, empty, repetitive, or a rewording of the truth is left out, as are doubles: a
    rewording is one whose ROUGE-L recall of the response, or of the paraphrased response, is above `max_rouge`.
    """

    count: Count = Field(5, description="different ones wanted for a prompt; at least one is needed")
    temperature: Number = Field(1.0, ge=0.01, le=100, description="temperature of the first round")
    tries: Count = Field(6, description="rounds of sampling, for the prompts that lack some")
    warming: Number = Field(0.1, ge=0, le=100, description="added to the temperature in each further round")
    max_rouge: Share = Field(
        0.9, description="an alternate that says more of the truth than this (ROUGE-L recall) is left out"
    )
    check_fallback: bool = Field(
        True,
        description="compare with the response alone where there is no paraphrased response; false: that is an error",
    )
    instruction: Text | None = Field(
        None,
        description="the prompt to sample with, holding {question} and, if wanted, {answer}; for chat models",
    )

    @model_validator(mode="after")
    def _question(self) -> AlternatesConfig:
        if self.instruction is not None and "{question}" not in self.instruction:
            raise ValueError("alternates.instruction must hold {question}")
        return self


class LossOptim(UnlearningOptim):
    """How a method that is a loss trains."""

    lr: Number = Field(3e-4, gt=0, le=10, description="learning rate at its highest")
    epochs: Number = Field(
        5, gt=0, le=10_000, description="passes over the forget set; parts of one are allowed"
    )
    batch_size: Count = Field(20, description="forget rows of an optimizer step")
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "constant", description="learning rate after the warm-up"
    )


class LossMethodConfig(MethodBase):
    """A method that is a loss: forget term, retain term, their weights."""

    kind: Literal["loss"] = Field("loss", description="a method that is a loss")
    optim: LossOptim = Field(LossOptim(), description="how the weights are trained")
    loss: Text = Field(description="name of the loss: a file of `dareu.methods`, or an entry point")
    retain: Literal["none", "nll", "kl", "js", "own"] = Field(
        "none",
        description="retain term: likelihood, KL or Jensen–Shannon divergence to the original; own: the loss's own",
    )
    scrambled_batch_size: Whole = Field(
        0,
        description="rows beside each update that are retain prompts with answers of random words: they hold what no "
        "retain row says, by KL to the original (with retain=js by that divergence); 0: none",
    )
    scrambled_weight: NonNegative = Field(
        1.0, description="weight of the divergence from the original on them"
    )
    forget_weight: NonNegative = Field(1.0, description="weight of the forget term")
    retain_weight: NonNegative = Field(1.0, description="weight of the retain term")
    params: dict[str, Any] = Field(
        default_factory=dict, description="the loss's own settings (docs/methods/)"
    )
    refusals: Text | None = Field(
        None, description="methods with refusals: text file, one refusal a line; null: the built-in list"
    )
    alternates: AlternatesConfig | None = Field(
        None, description="methods with alternate answers: how these are sampled"
    )

    @field_validator("params")
    @classmethod
    def _finite(cls, params: dict[str, Any]) -> dict[str, Any]:
        for name, value in params.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number")
        return params

    @property
    def algorithm(self) -> str:
        """Which method of the registry this configures."""
        return self.loss

    @model_validator(mode="after")
    def _weights(self) -> LossMethodConfig:
        if self.retain == "none" and self.retain_weight != 1:
            also = " and scrambled_batch_size=0" if self.scrambled_batch_size else ""
            raise ValueError(
                f"retain_weight={self.retain_weight} has no effect with retain=none; set retain=nll or kl, or "
                f"retain_weight=1{also}"
            )
        if self.forget_weight == 0 and (self.retain == "none" or self.retain_weight == 0):
            more = (
                "; rows of random words only hold the model where it is" if self.scrambled_batch_size else ""
            )
            raise ValueError(
                f"there is nothing to train on: forget_weight=0, and no retain term has a weight{more}"
            )
        return self


class VectorConfig(AnyMethod):
    """Task-vector negation: θ_orig − scale · (θ_tuned − θ_orig); `optim` says how θ_tuned learns the forget set."""

    algorithm: ClassVar[str] = "task_vector"  # of the registry
    kind: Literal["vector"] = Field("vector", description="task-vector negation")
    optim: LossOptim = Field(LossOptim(), description="how the copy learns the forget set")
    scale: Number = Field(2.0, ge=0, le=1000, description="s: how far to move in the opposite direction")


class NewtonConfig(AnyMethod):
    """Cubic-regularised stochastic Newton steps on retain_weight · NLL(retain) − forget_weight · NLL(forget).

    Its steps have no learning rate, so it has no `optim`.
    """

    algorithm: ClassVar[str] = "scurenewton"  # of the registry
    kind: Literal["newton"] = Field("newton", description="cubic-regularised Newton steps")
    cubic: Number = Field(400.0, gt=0, le=1e9, description="M, the weight of ‖Δ‖³/6")
    outer_steps: Count = Field(2, description="Newton steps")
    inner_steps: Count = Field(4, description="Hessian-vector products for each outer step")
    forget_weight: NonNegative = Field(
        1.0, description="of NLL on the forget set, maximised; 0 in Newton unlearning proper"
    )
    retain_weight: NonNegative = Field(1.0, description="of NLL on the retain set, minimised")
    batch_size: Count = Field(128, description="rows of each set for a gradient, all where there are fewer")
    hessian_batch_size: Count = Field(32, description="rows of each set for a Hessian-vector product")
    micro_batch_size: Count = Field(32, description="rows of one forward pass")

    @model_validator(mode="after")
    def _some_objective(self) -> NewtonConfig:
        if not self.forget_weight and not self.retain_weight:
            raise ValueError("forget_weight and retain_weight are both 0")
        return self


MethodConfig = Annotated[
    LossMethodConfig | DareUConfig | VectorConfig | NewtonConfig, Field(discriminator="kind")
]
