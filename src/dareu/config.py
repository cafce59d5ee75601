"""The typed configuration. Hydra composes YAML into a plain dict; `parse` turns it into these models.

Every key of every YAML under `configs/` exists here with its type, its default and what it means, so a
misspelt key, a value out of range or two keys that contradict one another fail before anything runs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dareu.errors import ConfigError, nearest

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Unknown keys are errors; values are not changed after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ForgetConfig(Strict):
    """Whose data goes. Exactly one of the four; none means two owners."""

    owners: list[str] | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    file: str | None = Field(None, description="text file, one owner a line")

    @model_validator(mode="after")
    def _one(self) -> ForgetConfig:
        given = [k for k in ("owners", "count", "fraction", "file") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of owners, count, fraction, file; got {', '.join(given)}")
        return self


class AuthorsConfig(Strict):
    """Fictional authors, generated."""

    name: Literal["authors"] = "authors"
    seed: int = 7
    owners: Annotated[int, Field(ge=2, le=200)] = 20
    pairs: Annotated[int, Field(ge=1, le=20)] = 20
    facts: Annotated[int, Field(ge=0, le=120)] = 60
    teach_test: bool = True


class Columns(Strict):
    """Which column of the user's file holds what."""

    prompt: str | None = "prompt"
    response: str = "response"
    owner: str | None = "owner"
    paraphrased_prompts: str | None = None
    paraphrased_response: str | None = None
    wrong_responses: str | None = None


class LocalConfig(Strict):
    """The user's own JSONL, CSV or Parquet file."""

    name: Literal["local"] = "local"
    path: str
    columns: Columns = Columns()
    test_path: list[str] | str | None = None
    test_columns: Columns | None = None
    teach_test: bool = False
    owners: list[str] | int | None = Field(None, description="keep these owners, or the first n")
    prompt_tokens: Annotated[int, Field(ge=1)] = 16


DataConfig = Annotated[AuthorsConfig | LocalConfig, Field(discriminator="name")]


class LoraConfig(Strict):
    """Adapter settings; the defaults are the paper's (r 8, alpha 16, dropout .05)."""

    r: Annotated[int, Field(ge=1)] = 8
    alpha: Positive = 16
    dropout: Share = 0.05
    target_modules: list[str] | str = "all-linear"


class TinyConfig(Strict):
    """A small Llama from its config, and a BPE tokenizer trained on the corpus."""

    name: Literal["tiny"] = "tiny"
    hidden_size: int = 128
    intermediate_size: int = 344
    layers: int = 4
    heads: int = 4
    vocab_size: int = 1200
    max_length: int = 128
    adapter: Literal["none"] = "none"
    dtype: Literal["float32"] = "float32"
    chat_template: Literal["auto"] = "auto"


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


class Optim(Strict):
    """One training loop. `steps` wins over `epochs` where it is given."""

    lr: Positive
    epochs: Positive = 1.0
    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_ratio: Share = 0.0
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    max_grad_norm: Positive = 1.0
    bf16: bool = False
    save_every: Annotated[int, Field(ge=1)] = Field(200, description="optimizer steps between checkpoints")

    @model_validator(mode="after")
    def _micro(self) -> Optim:
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self


class BackboneConfig(Strict):
    """The classifier's causal backbone: a small Llama from scratch on the policy's tokens, or a folder or hub id."""

    path: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    hidden_size: int = 64
    intermediate_size: int = 172
    layers: int = 2
    heads: int = 2
    adapter: Literal["lora", "none"] = "lora"
    lora: LoraConfig = LoraConfig(r=16, alpha=32, dropout=0.1)


class AttributorConfig(Strict):
    """The attribution classifier (METHOD: phase 1)."""

    name: Literal["causal", "lexical"] = "causal"
    backbone: BackboneConfig = BackboneConfig()
    optim: Optim = Optim(lr=2e-3, epochs=12, batch_size=32, warmup_ratio=0.05)
    nobody: bool = Field(True, description="extra class for broken text and text of no owner")
    nobody_share: Positive = Field(0.5, description="nobody examples per gold response")
    holdout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    max_length: int = 256
    warn_below: Share = Field(0.7, description="warn where an accuracy is lower")


class MethodBase(Strict):
    name: str
    optim: Optim
    retain_batch_size: Annotated[int, Field(ge=1)] | None = None


class LossMethodConfig(MethodBase):
    """A method that is a loss: forget term, retain term, their weights."""

    kind: Literal["loss"] = "loss"
    loss: str = Field(description="row of dareu.methods.METHODS")
    retain: Literal["none", "nll", "kl"] = "none"
    forget_weight: Annotated[float, Field(ge=0)] = 1.0
    retain_weight: Annotated[float, Field(ge=0)] = 1.0
    params: dict[str, Any] = Field(default_factory=dict)


class RewardConfig(Strict):
    """From attribution to reward (METHOD: phase 2 and the guards of §5)."""

    transform: Literal["log", "log_odds", "linear"] = "log"
    scale: Positive = Field(1.05, description="C_seg: χ is divided by it before it is clipped to [-1, 0]")
    epsilon: Annotated[float, Field(gt=0, lt=0.5)] = 1e-4
    target: Literal["forget_set", "owner"] = Field("forget_set", description="Σ_{j∈F} p(j|y), or p(i|y)")
    nobody_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="p(nobody|y) counts as attributable by this weight"
    )
    granularity: Literal["token", "slices", "sequence"] = "token"
    slices: Annotated[int, Field(ge=1)] = 15
    prefix_mean: bool = True
    kl: Annotated[float, Field(ge=0)] = 0.1
    length_penalty: Annotated[float, Field(ge=0)] = Field(
        0.0, description="taken at the last token of a response without end"
    )
    empty_penalty: Annotated[float, Field(ge=0)] = Field(
        1.0, description="taken where a response has no words"
    )
    repetition_penalty: Annotated[float, Field(ge=0)] = Field(
        0.0, description="taken at each token that closes a repeated 4-gram"
    )
    fluency: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the reference log-likelihood of each token"
    )
    fluency_clip: Positive = 5.0


class AdvantageConfig(Strict):
    """From rewards to advantages."""

    gamma: Share = 0.95
    gae_lambda: Share = Field(1.0, description="1 gives A = R - V, the paper's body")
    mode: Literal["scaled", "whitened", "raw"] = "scaled"
    scale: Positive = Field(4.0, description="scaled: A = (R - V)·(1-γ)·scale; not centred")


class StopConfig(Strict):
    """Held-out early stopping; looked at after every batch of rollouts."""

    attribution: Share | None = Field(
        0.05, description="stop once the stopping attributor's score is at or below this"
    )
    kl: Positive | None = Field(None, description="stop once KL(π ‖ π_N) per token on rollouts passes this")
    unhealthy: Share | None = Field(
        0.25, description="stop, and keep the last good weights, once this share of answers is broken"
    )
    patience: Annotated[int, Field(ge=1)] = 1


class DareUConfig(MethodBase):
    """DareU: PPO against the attribution classifier, distillation on the retain set."""

    kind: Literal["rl"] = "rl"
    reward: RewardConfig = RewardConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    stop: StopConfig = StopConfig()
    data_epochs: Annotated[int, Field(ge=1)] = 1
    prompts_per_batch: Annotated[int, Field(ge=1)] = 20
    num_generations: Annotated[int, Field(ge=1)] = 2
    updates_per_batch: Annotated[int, Field(ge=1)] = 8
    temperature: Positive = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    clip: Positive = 0.2
    distill: Annotated[float, Field(ge=0)] = 2.0
    distill_every: Annotated[int, Field(ge=1)] = 1
    value_coef: Annotated[float, Field(ge=0)] = 0.2
    critic_lr: Positive | None = None
    entropy_coef: float = 0.0
    merge_rollouts: bool = True
    use_vllm: bool = False


MethodConfig = Annotated[LossMethodConfig | DareUConfig, Field(discriminator="kind")]


class EvaluationConfig(Strict):
    batch_size: Annotated[int, Field(ge=1)] = 128
    max_new_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="None: longest reference + 8"
    )
    retain_limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="evaluate this many retain samples"
    )
    reattribution_threshold: Share = 0.9


class LoggingConfig(Strict):
    report_to: Literal["none", "wandb", "tensorboard"] = "none"
    project: str = "dareu"
    offline: bool = True
    every: Annotated[int, Field(ge=1)] = 1


class RunConfig(Strict):
    """Everything a run needs."""

    seed: int = 41
    run_dir: str | None = None
    cache_dir: str | None = None
    overwrite: bool = False
    retrain: bool = True
    original: str | None = Field(
        None, description="folder of a model fine-tuned elsewhere, used as the original"
    )
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    experiment: str | None = None
    forget: ForgetConfig = ForgetConfig()
    data: DataConfig
    model: ModelConfig
    finetune: Optim
    attributor: AttributorConfig = AttributorConfig()
    method: MethodConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()


def _field_names(model: type[Strict]) -> set[str]:
    """Every key that `model` or a model below it has."""
    names: set[str] = set()
    seen: set[Any] = set()
    queue: list[Any] = [model]
    while queue:
        node = queue.pop()
        if isinstance(node, type) and issubclass(node, Strict):
            if node in seen:
                continue
            seen.add(node)
            names |= set(node.model_fields)
            queue += [field.annotation for field in node.model_fields.values()]
        else:
            queue += list(get_args(node))
    return names


def parse(tree: dict[str, Any]) -> RunConfig:
    """A composed config (plain dict) as a `RunConfig`; `ConfigError` names the key, the cause and the nearest key."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            path = ".".join(str(p) for p in item["loc"])
            if item["type"] == "extra_forbidden":
                hint = nearest(str(item["loc"][-1]), sorted(_field_names(RunConfig)))
                lines.append(f"unknown key '{path}'. {hint}".strip())
            else:
                lines.append(
                    f"'{path}': {item['msg'].removeprefix('Value error, ')} (got {item.get('input')!r:.80})"
                )
        raise ConfigError(
            "The configuration is not valid: " + "; ".join(lines) + ".",
            "Run `dareu configs` for what can be chosen.",
        ) from None
