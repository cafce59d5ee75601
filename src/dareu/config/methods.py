"""Methods that are a loss, and those that are a procedure; `MethodConfig` is any method."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dareu.config.base import Count, MethodBase, NonNegative, Optim, Positive, Share, Strict
from dareu.config.rl import DareUConfig


class AlternatesConfig(Strict):
    """Alternate answers that the original model gives to a forget prompt (AltPO).

    A sampled answer that is unfinished, empty, repetitive, or a rewording of the truth is left out, as are doubles: a
    rewording is one whose ROUGE-L recall of the response, or of the paraphrased response, is above `max_rouge`.
    """

    count: Count = Field(5, description="different ones wanted for a prompt; at least one is needed")
    temperature: Positive = 1.0
    tries: Count = Field(4, description="rounds of sampling, for the prompts that lack some")
    warming: NonNegative = Field(0.0, description="added to the temperature in each further round")
    max_rouge: Share = 0.9
    check_fallback: bool = Field(
        False, description="compare with the response alone where there is no paraphrased response"
    )
    instruction: str | None = Field(
        None,
        description="the prompt to sample with, holding {question} and, if wanted, {answer}; for chat models",
    )

    @model_validator(mode="after")
    def _question(self) -> AlternatesConfig:
        if self.instruction is not None and "{question}" not in self.instruction:
            raise ValueError("alternates.instruction must hold {question}")
        return self


class LossMethodConfig(MethodBase):
    """A method that is a loss: forget term, retain term, their weights."""

    kind: Literal["loss"] = "loss"
    optim: Optim
    loss: str = Field(description="row of dareu.methods.METHODS")
    retain: Literal["none", "nll", "kl", "js", "own"] = Field(
        "none", description="own: the loss's own retain term"
    )
    forget_weight: NonNegative = 1.0
    retain_weight: NonNegative = 1.0
    params: dict[str, Any] = Field(default_factory=dict)
    refusals: str | None = Field(None, description="text file, one refusal a line; None: a list of our own")
    alternates: AlternatesConfig | None = None

    @model_validator(mode="after")
    def _weights(self) -> LossMethodConfig:
        if self.retain == "none" and self.retain_weight != 1:
            raise ValueError(
                f"retain_weight={self.retain_weight} weighs nothing where retain=none; nearest: retain=nll"
            )
        if self.forget_weight == 0 and (self.retain == "none" or self.retain_weight == 0):
            raise ValueError("nothing is left to learn: forget_weight=0, and no retain term with a weight")
        return self


class VectorConfig(Strict):
    """Task-vector negation: θ_orig − scale · (θ_tuned − θ_orig); `optim` says how θ_tuned learns the forget set."""

    kind: Literal["vector"] = "vector"
    name: str
    optim: Optim
    scale: NonNegative = 1.0
    search: dict[str, str] = Field(default_factory=dict)


class NewtonConfig(Strict):
    """Cubic-regularised stochastic Newton steps on retain_weight · NLL(retain) − forget_weight · NLL(forget).

    Its steps have no learning rate, so it has no `optim`.
    """

    kind: Literal["newton"] = "newton"
    name: str
    cubic: Positive = Field(400.0, description="M, the weight of ‖Δ‖³/6")
    outer_steps: Count = 2
    inner_steps: Count = Field(4, description="Hessian-vector products for each outer step")
    forget_weight: NonNegative = 0.0
    retain_weight: NonNegative = 1.0
    batch_size: Count = Field(128, description="rows of each set for a gradient, all where there are fewer")
    hessian_batch_size: Count = Field(32, description="rows of each set for a Hessian-vector product")
    micro_batch_size: Count = 32
    search: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _some_objective(self) -> NewtonConfig:
        if not self.forget_weight and not self.retain_weight:
            raise ValueError("forget_weight and retain_weight are both 0")
        return self


MethodConfig = Annotated[
    LossMethodConfig | DareUConfig | VectorConfig | NewtonConfig, Field(discriminator="kind")
]
