"""Which model is fine-tuned, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dareu.config.base import Integer, Number, Optim, Seed, Share, Strict, Text

NULL_IS_NONE = BeforeValidator(lambda value: "none" if value is None else value)
Context = Annotated[Integer, Field(ge=8, le=1_000_000)]

PINNED_DATE = "2024-07-26"  # what Llama 3's chat template falls back on


class LoraConfig(Strict):
    """Adapter settings; the defaults are those of Lu et al. 2026 (r 8, alpha 16, dropout .05)."""

    r: Integer = Field(8, ge=1, le=4096, description="rank of the adapter's matrices")
    alpha: Number = Field(16, gt=0, le=100_000, description="the adapter's product is scaled by alpha / r")
    dropout: Share = Field(0.05, description="dropout of the adapter's input while it is trained")
    target_modules: list[Text] | Text = Field(
        "all-linear",
        description="modules that get an adapter: names, a regular expression, or all-linear (all but the head)",
    )
    dora: bool = Field(
        False, description="train magnitude and direction of the weights apart (DoRA, Liu et al. 2024)"
    )
    rslora: bool = Field(
        False, description="scale by alpha / √r in place of alpha / r (rsLoRA, Kalajdzievski 2023)"
    )


class PretrainConfig(Strict):
    """What the tiny base learns before any fine-tuning, where the data source has background text.

    First the openings of answers, up to the name in the question; then whole answers. Without the first phase
    a model of this size takes several times as long to copy names.
    """

    persons: Integer = Field(3000, ge=1, le=100_000, description="persons that the background text is about")
    questions: Integer = Field(2, ge=1, le=20, description="questions on each of them")
    init_std: Number = Field(
        0.08,
        gt=0,
        le=1,
        description="standard deviation of the initial weights; 0.02 learns to copy much later",
    )
    seed: Seed = Field(
        0, description="seed of the weights and of the order; the base is the same for all runs"
    )
    openings: Optim = Field(
        Optim(
            lr=2e-3,
            steps=110,
            batch_size=64,
            adam_beta2=0.95,
            warmup_ratio=0.05,
            scheduler="constant_with_warmup",
        ),
        description="first phase: answers that end after the name",
    )
    answers: Optim = Field(
        Optim(
            lr=3e-3,
            epochs=1,
            batch_size=32,
            adam_beta2=0.95,
            warmup_ratio=0.05,
            scheduler="cosine",
            weight_decay=0.01,
        ),
        description="second phase: whole answers",
    )


class TinyConfig(Strict):
    """A small Llama from its config, and a BPE tokenizer trained on the corpus or on the background text."""

    name: Literal["tiny"] = Field("tiny", description="kind of model")
    hidden_size: Integer = Field(
        128, ge=2, le=16_384, description="width; a multiple of twice the number of heads"
    )
    intermediate_size: Integer = Field(344, ge=1, le=65_536, description="width of the feed-forward layer")
    layers: Integer = Field(4, ge=1, le=256, description="decoder blocks")
    heads: Integer = Field(4, ge=1, le=256, description="attention heads of a block")
    vocab_size: Integer = Field(
        1800,
        ge=260,
        le=1_000_000,
        description="tokens of the tokenizer at most; 256 bytes and 4 special tokens are always among them",
    )
    max_length: Context = Field(128, description="tokens of a prompt and its response at most")
    pretrain: PretrainConfig | None = Field(
        PretrainConfig(),
        description="pretraining on the background text of the data source; null: an untrained base",
    )
    adapter: Annotated[Literal["none"], NULL_IS_NONE] = Field(
        "none", description="a tiny model has no adapter"
    )
    dtype: Literal["float32"] = Field("float32", description="type of the weights")
    chat_template: Literal["auto"] = Field(
        "auto", description="the template of two turns that it is made with"
    )

    @model_validator(mode="after")
    def _heads(self) -> TinyConfig:
        check_heads(self.hidden_size, self.heads)
        return self


def check_heads(hidden_size: int, heads: int) -> None:
    if hidden_size % (2 * heads):
        raise ValueError(f"hidden_size must be a multiple of twice the heads (2 × {heads})")  # rotary: pairs


class HFConfig(Strict):
    """Any causal language model from a local folder or a hub id."""

    name: Literal["hf"] = Field("hf", description="kind of model")
    path: Text = Field(description="folder of a model, or its id on the Hugging Face hub")
    revision: Text | None = Field(None, description="commit, tag or branch on the hub; null: its main branch")
    trust_remote_code: bool = Field(
        False, description="run the model's own Python code (only where you trust it)"
    )
    adapter: Annotated[Literal["lora", "none"], NULL_IS_NONE] = Field(
        "lora", description="train a LoRA adapter, or (none) all weights"
    )
    lora: LoraConfig = Field(LoraConfig(), description="the adapter")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32", description="type of the weights; auto: as they are stored"
    )
    quantization: Literal["nf4", "int8"] | None = Field(
        None,
        description="nf4 (QLoRA, Dettmers et al. 2023) or int8: frozen weights below the adapter in 4 or 8 bits; null: "
        "none. Needs the extra dareu[quantise]; on a CPU it saves memory, not time",
    )
    chat_template: Text = Field(
        "auto",
        description="the tokenizer's chat template; the name of one of several; none: lines of question and answer",
    )
    template_options: dict[str, str | bool | int | float | None] = Field(
        {},
        description="variables that the chat template reads, such as {enable_thinking: false}; understood as "
        "chat_template_kwargs too, their name in vLLM and TRL",
    )
    template_date: Annotated[str, Field(pattern=r"\d{4}-\d{2}-\d{2}")] = Field(
        PINNED_DATE, description="what a chat template that writes today's date takes for today"
    )
    system_prompt: Text | None = Field(None, description="system turn before every question; null: none")
    max_length: Context = Field(512, description="tokens of a prompt and its response at most")
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, more time"
    )
    attn_implementation: Text | None = Field(
        None,
        description="sdpa, eager, flash_attention_2, …; null: transformers' choice. eager trains faster on a CPU",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_of_others(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(others := tree.get("chat_template_kwargs"), dict):
            if not isinstance(tree.get("template_options") or {}, dict):
                return tree  # the types tell
            tree = {key: value for key, value in tree.items() if key != "chat_template_kwargs"}
            tree["template_options"] = {**(tree.get("template_options") or {}), **others}
        return tree

    @model_validator(mode="after")
    def _quantised_weights_are_frozen(self) -> HFConfig:
        if self.quantization is not None and self.adapter == "none":
            raise ValueError("quantised weights cannot be trained: adapter=lora, or quantization=null")
        return self


ModelConfig = Annotated[TinyConfig | HFConfig, Field(discriminator="name")]
