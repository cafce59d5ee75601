"""Which model is fine-tuned, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dareu.config.base import Count, Positive, Share, Strict


class LoraConfig(Strict):
    """Adapter settings; the defaults are the paper's (r 8, alpha 16, dropout .05)."""

    r: Count = 8
    alpha: Positive = 16
    dropout: Share = 0.05
    target_modules: list[str] | str = "all-linear"


class TinyConfig(Strict):
    """A small Llama from its config, and a BPE tokenizer trained on the corpus."""

    name: Literal["tiny"] = "tiny"
    hidden_size: Count = 128
    intermediate_size: Count = 344
    layers: Count = 4
    heads: Count = 4
    vocab_size: Count = 1200
    max_length: Count = 128
    adapter: Literal["none"] = "none"
    dtype: Literal["float32"] = "float32"
    chat_template: Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _heads(self) -> TinyConfig:
        check_heads(self.hidden_size, self.heads)
        return self


def check_heads(hidden_size: int, heads: int) -> None:
    if hidden_size % (2 * heads):
        raise ValueError(f"hidden_size must be a multiple of twice the heads (2 × {heads})")  # rotary: pairs


class HFConfig(Strict):
    """Any causal language model from a local folder or a hub id."""

    name: Literal["hf"] = "hf"
    path: str
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: Literal["lora", "none"] = "lora"
    lora: LoraConfig = LoraConfig()
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    chat_template: Literal["auto", "none"] = "auto"
    max_length: int = 512
    gradient_checkpointing: bool = False
    attn_implementation: str | None = None


ModelConfig = Annotated[TinyConfig | HFConfig, Field(discriminator="name")]
