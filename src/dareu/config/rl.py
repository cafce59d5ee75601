"""DareU and its kin: reward, advantage, stopping, rollouts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dareu.config.base import Count, MethodBase, NonNegative, Optim, Positive, Share, Strict


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
