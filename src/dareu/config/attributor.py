"""The attribution classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dareu.config.base import Count, Optim, Positive, Share, Strict
from dareu.config.models import LoraConfig, check_heads


class BackboneConfig(Strict):
    """The classifier's causal backbone: a small Llama from scratch on the policy's tokens, or a folder or hub id."""

    path: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    hidden_size: Count = 64
    intermediate_size: Count = 172
    layers: Count = 2
    heads: Count = 2
    adapter: Literal["lora", "none"] = "lora"
    lora: LoraConfig = LoraConfig(r=16, alpha=32, dropout=0.1)

    @model_validator(mode="after")
    def _heads(self) -> BackboneConfig:
        if self.path is None:
            check_heads(self.hidden_size, self.heads)
        return self


class AttributorConfig(Strict):
    """The attribution classifier (METHOD: phase 1).

    `name` says which attributor gives the reward; the other of the two tells when to stop, so that the stopping
    rule never listens to what the policy was trained against. `lexical`: words and pairs of words, no network and
    no nobody class; it scores every prefix by a call of its own.
    """

    name: Literal["causal", "lexical"] = "causal"
    backbone: BackboneConfig = BackboneConfig()
    optim: Optim = Optim(lr=2e-3, epochs=12, batch_size=32, warmup_ratio=0.05)
    nobody: bool = Field(True, description="extra class for broken text and text of no owner")
    nobody_share: Positive = Field(0.5, description="nobody examples per gold response")
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    max_length: int = 256
    warn_below: Share = Field(0.7, description="warn where an accuracy is lower")
    crops: Annotated[int, Field(ge=0)] = Field(
        2,
        description="endings of each response that are learnt beside it, so that facts are known wherever they stand",
    )
    blind: bool = Field(True, description="also learn responses without the names that their question has")
