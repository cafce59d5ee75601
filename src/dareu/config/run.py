"""A whole run: evaluation, logging, and all parts with the checks across them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dareu.config.attributor import AttributorConfig
from dareu.config.base import Count, Optim, Share, Strict
from dareu.config.data import DataConfig, ForgetConfig, RoundsConfig
from dareu.config.methods import MethodConfig
from dareu.config.models import ModelConfig
from dareu.config.rl import DareUConfig


class EvaluationConfig(Strict):
    """`part` says which of forget, retain and test samples are evaluated; training always sees all of them.

    `validation` is what settings are chosen on, `report` all the rest (see `dareu.data.parts`).
    """

    batch_size: Count = 128
    max_new_tokens: Count | None = Field(None, description="None: longest reference + 8")
    retain_limit: Count | None = Field(None, description="evaluate this many retain samples")
    reattribution_threshold: Share = 0.9
    part: Literal["all", "validation", "report"] = "all"
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    likelihoods: bool = Field(
        True, description="false leaves out probability and truth ratio, most of the time"
    )

    def measured(self) -> dict[str, Any]:
        """What the figures depend on, for content keys; keys at a default that changes nothing are left out."""
        tree = self.model_dump(exclude={"batch_size"})
        if self.part == "all":
            del tree["part"], tree["validation_share"]
        if self.likelihoods:
            del tree["likelihoods"]
        return tree


class LoggingConfig(Strict):
    report_to: Literal["none", "wandb", "tensorboard"] = "none"
    project: str = "dareu"
    offline: bool = True
    every: Count = 1


class RunConfig(Strict):
    """Everything a run needs."""

    seed: int = 41
    run_dir: str | None = None
    cache_dir: str | None = None
    overwrite: bool = False
    retrain: bool = True
    original: str | None = Field(None, description="folder of a model that was fine-tuned elsewhere")
    device: str = "auto"
    threads: Count | None = None
    experiment: str | None = None
    forget: ForgetConfig = ForgetConfig()
    rounds: RoundsConfig | None = Field(None, description="requests one after another, in place of forget")
    data: DataConfig
    model: ModelConfig
    finetune: Optim
    attributor: AttributorConfig = AttributorConfig()
    method: MethodConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _blind(self) -> RunConfig:
        if self.attributor.blind or not isinstance(self.method, DareUConfig):
            return self
        reward = self.method.reward
        needs = {
            "blind": reward.blind and self.method.reads_attributor,  # by the reward or by the stopping rule
            "nameless": reward.nameless and reward.kind == "attribution",
        }
        for key, needed in needs.items():
            if needed:
                raise ValueError(
                    f"method.reward.{key}=true needs attributor.blind=true; set method.reward.{key}=false as well"
                )
        return self

    @field_validator("rounds")
    @classmethod
    def _alone(cls, rounds: RoundsConfig | None, info: ValidationInfo) -> RoundsConfig | None:
        forget = info.data.get("forget") or ForgetConfig()
        asked = ", ".join(f"forget.{key}" for key in forget.model_dump(exclude_none=True))
        if rounds is not None and asked:
            raise ValueError(f"rounds and {asked} contradict one another; give one of them")
        return rounds
