"""The typed configuration. Hydra composes YAML into a plain dict; `parse` turns it into these models.

Every key of every YAML under `configs/` exists here with its type, its default and what it means, so a
misspelt key, a value out of range or two keys that contradict one another fail before anything runs.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dareu.errors import ConfigError, nearest

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Unknown keys are errors; values are not changed after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ForgetConfig(Strict):
    """Whose data goes. Exactly one of the four; none means two owners."""

    owners: list[str] | None = None
    count: Count | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    file: str | None = Field(None, description="text file, one owner a line")

    @model_validator(mode="after")
    def _one(self) -> ForgetConfig:
        given = [k for k in ("owners", "count", "fraction", "file") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of owners, count, fraction, file; got {', '.join(given)}")
        return self


class RoundsConfig(Strict):
    """Requests that come one after another; `[[name, …], [name, …]]` is short for `{owners: …}`.

    `owners`: whose data goes in each round. `count`: that many rounds of `owners_per_round` owners, the last owners of
    the corpus first, so that more rounds go on from fewer.
    """

    owners: list[list[str]] | None = None
    count: Count | None = None
    owners_per_round: Count = 1
    compare: Literal["every", "last"] = Field(
        "every",
        description="rounds in which the original and a retrained model stand beside the unlearned one",
    )

    @model_validator(mode="before")
    @classmethod
    def _names(cls, tree: Any) -> Any:
        return {"owners": tree} if isinstance(tree, list | tuple) else tree

    @model_validator(mode="after")
    def _one(self) -> RoundsConfig:
        if (self.owners is None) == (self.count is None):
            raise ValueError("give either owners, a list of owners for each round, or count")
        if self.owners is not None and not all(self.owners or [[]]):
            empty = next((i for i, names in enumerate(self.owners, 1) if not names), 1)
            raise ValueError(f"round {empty} names nobody; give each round at least one owner")
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
    prompt_tokens: Count = 16


class ExternalConfig(BaseModel):
    """A data source of another package (entry point `dareu.sources`): its `name`, and keys that it reads itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str


def _source(tree: Any) -> str:
    name = tree.get("name") if isinstance(tree, dict) else getattr(tree, "name", None)
    return name if name in ("authors", "local") else "external"


DataConfig = Annotated[
    Annotated[AuthorsConfig, Tag("authors")]
    | Annotated[LocalConfig, Tag("local")]
    | Annotated[ExternalConfig, Tag("external")],
    Discriminator(_source),
]


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
        _check_heads(self.hidden_size, self.heads)
        return self


def _check_heads(hidden_size: int, heads: int) -> None:
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
            _check_heads(self.hidden_size, self.heads)
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


class MethodBase(Strict):
    """`search` is what `dareu tune` looks through: key below `method.` → a choice, range or interval in Hydra's
    override grammar. It changes no run.
    """

    name: str
    optim: OptimBase
    retain_batch_size: Count | None = None
    search: dict[str, str] = Field(default_factory=dict)


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


class RewardConfig(Strict):
    """What a response earns. `attribution` is DareU's, and the keys from `transform` to `credit` are its own; the
    others read the whole text: `refusal` (RULE), `forbidden_words` (PURGE), `dissimilarity` (DeMem). KL term and
    guards are added to any of them.
    """

    kind: Literal["attribution", "refusal", "forbidden_words", "dissimilarity"] = "attribution"
    similar: Share = Field(0.3, description="refusal: ROUGE-L above which an answer is like the reference")
    rare: Share = Field(
        0.01, description="forbidden_words: share of retain answers that may have a rare word"
    )
    transform: Literal["log", "log_odds", "linear"] = "log"
    scale: Positive = Field(1.05, description="C_seg: χ is divided by it before it is clipped to [-1, 0]")
    epsilon: Annotated[float, Field(gt=0, lt=0.5)] = 1e-4
    target: Literal["forget_set", "owner"] = Field("forget_set", description="Σ_{j∈F} p(j|y), or p(i|y)")
    blind: bool = Field(
        True, description="the response is judged without the names that its question has, so by what it adds"
    )
    nameless: bool = Field(
        False,
        description="judged once more without any owner's name, the higher score counts: no hiding under false names",
    )
    floor: NonNegative = Field(
        0.0,
        description="scores below so many times that of an empty text count as that: less attributable earns nothing",
    )
    nobody_weight: NonNegative = Field(0.0, description="p(nobody|y) counts as attributable by this weight")
    granularity: Literal["token", "slices", "sequence"] = "token"
    slices: Count = 15
    prefix_mean: bool = True
    credit: Literal["level", "difference"] = Field(
        "level",
        description="difference: each token is rewarded for the change that it makes (potential-based)",
    )
    kl: NonNegative = 0.1
    length_penalty: NonNegative = Field(0.0, description="taken at the last token of a response without end")
    empty_penalty: NonNegative = Field(1.0, description="taken where a response has no words")
    repetition_penalty: NonNegative = Field(
        0.0, description="taken at each token that closes a repeated 4-gram"
    )
    fluency: NonNegative = Field(0.0, description="weight of the reference log-likelihood of each token")
    fluency_clip: Positive = 5.0


class AdvantageConfig(Strict):
    """From rewards to advantages. `rloo` and `grpo` compare the rollouts of a prompt and need no critic."""

    estimator: Literal["critic", "rloo", "grpo"] = "critic"
    gamma: Share = 0.95
    gae_lambda: Share = Field(1.0, description="1 gives A = R - V, the paper's body")
    mode: Literal["scaled", "whitened", "raw"] = "scaled"
    scale: Positive = Field(4.0, description="scaled: A = (R - V)·(1-γ)·scale; not centred")


class StopConfig(Strict):
    """Held-out early stopping; looked at after every batch of rollouts."""

    attribution: Share | Literal["wrong_answers"] | None = Field(
        "wrong_answers",
        description="stop once the stopping attributor's score is at or below this; wrong_answers: below what the "
        "forget queries' wrong answers score, 0.05 where the data has none",
    )
    kl: Positive | None = Field(None, description="stop once KL(π ‖ π_N) per token on rollouts passes this")
    unhealthy: Share | None = Field(
        0.25, description="stop, and keep the last good weights, once this share of answers is broken"
    )
    patience: Count = 1


class RetainPromptsConfig(Strict):
    """Retain prompts among those that are sampled: what the original itself answers to them earns most."""

    share: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="of all prompts, by retain prompts")
    boundary: Share = Field(0.0, description="of the retain prompts, by those nearest to a forget prompt")


class RefusalPhase(Strict):
    """Before the reinforcement: learn refusals to the forget prompts by their likelihood."""

    optim: Optim = Optim(lr=3e-4, epochs=3, batch_size=20)
    retain: Literal["none", "nll", "kl"] = "nll"
    retain_weight: NonNegative = 1.0


class DareUConfig(MethodBase):
    """DareU: PPO against the attribution classifier, distillation on the retain set; and its kin, which differ in
    `reward.kind` and `advantage.estimator`.

    Its length is data_epochs · ⌈forget prompts / prompts_per_batch⌉ · updates_per_batch updates, times the parts that
    `rollouts_per_update` cuts a batch into, so `optim` has no steps, epochs or batch_size.
    """

    kind: Literal["rl"] = "rl"
    reward: RewardConfig = RewardConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    stop: StopConfig = StopConfig()
    retain_prompts: RetainPromptsConfig = RetainPromptsConfig()
    refusal_phase: RefusalPhase | None = None
    data_epochs: Count = 1
    prompts_per_batch: Count = 20
    num_generations: Count = 2
    updates_per_batch: Count = 8
    rollouts_per_update: Count | None = None
    temperature: Positive = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count | None = None
    clip: Positive = 0.2
    distill: NonNegative = 2.0
    distill_every: Count = 1
    value_coef: NonNegative = 0.2
    critic_lr: Positive | None = None
    entropy_coef: float = 0.0
    merge_rollouts: bool = True
    use_vllm: bool = False
    kl_loss: NonNegative = Field(
        0.0, description="weight of KL(π ‖ π_N) on rollouts in the loss, as GRPO has it"
    )

    @model_validator(mode="after")
    def _groups(self) -> DareUConfig:
        if self.advantage.estimator != "critic" and self.num_generations < 2:
            raise ValueError(
                f"advantage.estimator={self.advantage.estimator} compares the rollouts of a prompt with one another: "
                f"num_generations must be at least 2, not {self.num_generations}; or choose estimator=critic"
            )
        return self

    @property
    def reads_attributor(self) -> bool:
        """Whether reward or early stopping ask an attributor."""
        return self.reward.kind == "attribution" or self.stop.attribution is not None


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
        reads = isinstance(self.method, DareUConfig) and self.method.reads_attributor
        for key in ("blind", "nameless"):
            if reads and getattr(self.method.reward, key) and not self.attributor.blind:  # type: ignore[union-attr]
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


# Keys with variants, and the key that tells a variant apart. pydantic puts its tag (tiny, rl, …) into the path.
_UNIONS = {"data": "name", "model": "name", "method": "kind"}


def _keys(node: Any, path: str = "") -> list[str]:
    """Every dotted key below a type; those of all variants where there are several."""
    if not (isinstance(node, type) and issubclass(node, BaseModel)):
        return [key for part in get_args(node) for key in _keys(part, path)]
    found = []
    for name, field in node.model_fields.items():
        found += [f"{path}{name}", *_keys(field.annotation, f"{path}{name}.")]
        found += [key for part in field.metadata for key in _keys(part, f"{path}{name}.")]
    return list(dict.fromkeys(found))


def _unknown(path: str, tree: dict[str, Any]) -> str:
    """What to say of a key that is not there: that another variant has it, or the nearest keys."""
    known = _keys(RunConfig)
    top = path.partition(".")[0]
    if path in known and top in _UNIONS:
        length = "; data_epochs, prompts_per_batch and updates_per_batch say how long it trains"
        more = length if path.startswith("method.optim.") else ""
        return f"unknown key '{path}' where {top}.{_UNIONS[top]}={tree[top].get(_UNIONS[top])}{more}"
    above, _, name = path.rpartition(".")
    close = get_close_matches(
        path, [key for key in known if key.rpartition(".")[0] == above], n=1, cutoff=0.6
    )
    same = [key for key in known if key.rpartition(".")[2] == name]  # the right name in the wrong place
    return f"unknown key '{path}'. {nearest(path, close or same or known)}".removesuffix(".")


def parse(tree: dict[str, Any]) -> RunConfig:
    """A composed config (plain dict) as a `RunConfig`; `ConfigError` names the key, the cause and the nearest key."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            loc = [p for i, p in enumerate(item["loc"]) if i != 1 or item["loc"][0] not in _UNIONS]
            path = ".".join(map(str, loc))
            if item["type"] == "extra_forbidden":
                lines.append(_unknown(path, tree))
            else:
                got = "" if isinstance(item.get("input"), dict) else f" (got {item.get('input')!r:.80})"
                where = f"'{path}': " if path else ""  # a check of the whole has no key of its own
                lines.append(f"{where}{item['msg'].removeprefix('Value error, ')}{got}")
        raise ConfigError(
            "The configuration is not valid: " + "; ".join(lines) + ".",
            "Run `dareu configs` for what can be chosen, `dareu train --print` for the keys.",
        ) from None
