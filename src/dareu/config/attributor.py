"""The attribution classifier."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dareu.config.base import Integer, Number, Optim, Positive, Share, Strict, Text
from dareu.config.models import Context, LoraConfig, check_heads


class BackboneLora(LoraConfig):
    """The classifier's adapter; the defaults are those of Lu et al. 2026 (r 16, alpha 32, dropout .1)."""

    r: Integer = Field(16, ge=1, le=4096, description="rank of the adapter's matrices")
    alpha: Number = Field(32, gt=0, le=100_000, description="the adapter's product is scaled by alpha / r")
    dropout: Share = Field(0.1, description="dropout of the adapter's input while it is trained")


class BackboneConfig(Strict):
    """The classifier's causal backbone: a small Llama from scratch on the policy's tokens, or a folder or hub id."""

    path: Text | None = Field(
        None, description="folder or hub id of a pretrained model; null: a small Llama from scratch"
    )
    revision: Text | None = Field(None, description="commit, tag or branch on the hub; null: its main branch")
    trust_remote_code: bool = Field(
        False, description="run the model's own Python code (only where you trust it)"
    )
    hidden_size: Integer = Field(
        64, ge=2, le=16_384, description="from scratch: width; a multiple of twice the number of heads"
    )
    intermediate_size: Integer = Field(
        172, ge=1, le=65_536, description="from scratch: width of the feed-forward layer"
    )
    layers: Integer = Field(2, ge=1, le=256, description="from scratch: decoder blocks")
    heads: Integer = Field(2, ge=1, le=256, description="from scratch: attention heads of a block")
    adapter: Literal["lora", "none"] = Field(
        "lora", description="pretrained: train a LoRA adapter, or (none) all weights"
    )
    lora: BackboneLora = Field(BackboneLora(), description="pretrained: the adapter")

    @model_validator(mode="after")
    def _heads(self) -> BackboneConfig:
        if self.path is None:
            check_heads(self.hidden_size, self.heads)
        return self


class AttributorOptim(Optim):
    """How the classifier is trained."""

    lr: Number = Field(2e-3, gt=0, le=10, description="learning rate at its highest")
    epochs: Number = Field(6, gt=0, le=10_000, description="passes over the data; parts of one are allowed")
    warmup_ratio: Share = Field(
        0.05, description="share of the steps in which the learning rate rises from 0"
    )


class AttributorConfig(Strict):
    """The attribution classifier (METHOD: phase 1)."""

    name: Text = Field(
        "causal",
        description="attributor that gives the reward; another one decides when to stop, so that the stopping rule "
        "does not read what the policy was trained against. causal: the classifier; lexical: words and pairs of words, "
        "without a network and without a class for broken text; or one of another package",
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="settings of an attributor other than causal and lexical"
    )
    backbone: BackboneConfig = Field(BackboneConfig(), description="the classifier's language model")
    optim: AttributorOptim = Field(AttributorOptim(), description="how the classifier is trained")
    nobody: bool = Field(True, description="background class: broken text and text of no owner")
    nobody_share: Positive = Field(0.5, description="examples of the background class per response")
    holdout: Number = Field(
        0.1, gt=0, lt=0.5, description="share of each owner's responses that its accuracy is measured on"
    )
    max_length: Context = Field(128, description="tokens of a text that are read")
    warn_below: Share = Field(0.7, description="warn where an accuracy is lower")
    crops: Integer = Field(
        11,
        ge=0,
        le=1000,
        description="endings of each response that are learnt beside it, so that facts are known wherever they stand",
    )
    label_noise: Share = Field(
        0.0,
        description="share of the responses that the classifier learns under another owner: how robust unlearning is "
        "to a worse classifier",
    )
    blind: bool = Field(
        True, description="also learn responses in which the names of their question are masked"
    )
