"""DareU and its kin: reward, advantage, stopping, rollouts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dareu.config.base import (
    Count,
    MethodBase,
    NonNegative,
    Number,
    Optim,
    OptimBase,
    Positive,
    Share,
    Strict,
    Text,
    TopK,
    UnlearningOptim,
    Whole,
)


class RewardConfig(Strict):
    """What a response earns. `attribution` is DareU's, and the keys from `transform` to `credit` are its own; the
    others read the whole text: `refusal` (RULE), `forbidden_words` (PURGE), `dissimilarity` (DeMem). KL term and
    guards are added to any of them.
    """

    kind: Text = Field(
        "attribution",
        description="the reward. attribution: text that is not the owner's (DareU); refusal (RULE); "
        "forbidden_words: none of the forget set's names and rare words (PURGE); dissimilarity to the true answer "
        "(DeMem); or a reward of another package",
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="settings of a reward of another package"
    )
    similar: Share = Field(
        0.3, description="refusal: ROUGE-L recall above which an answer is like the reference"
    )
    refusals: Text | None = Field(
        None, description="refusal: text file of known refusals, one a line; null: the built-in list"
    )
    form: Literal["binary", "exponential_decay", "page_rank"] = Field(
        "binary",
        description="forbidden_words: 1 for none, else 0; e^(-n/τ) for n of them; or 1 less the weight of each, by its "
        "nearness to the owners' names (PageRank)",
    )
    tau: Positive = Field(1.0, description="forbidden_words, exponential_decay: τ")
    rare: Share = Field(
        0.01, description="forbidden_words: share of retain answers that may have a rare word"
    )
    transform: Literal["log", "log_odds", "linear"] = Field(
        "log", description="χ of the attributable share p: log(1 - p) (the paper's), log odds, or 1 - p"
    )
    scale: Positive = Field(
        0.7,
        description="C_seg: χ is divided by it before it is clipped to [-1, 0]. 1.05 in the paper, whose scores are "
        "those of whole answers",
    )
    epsilon: Number = Field(1e-4, gt=0, lt=0.5, description="probabilities are kept this far from 0 and 1")
    target: Literal["forget_set", "owner"] = Field(
        "forget_set",
        description="what counts as attributable: Σ_{j∈F} p(j|y), or p(i|y) of the prompt's owner (paper)",
    )
    blind: bool = Field(
        True,
        description="mask the question's names in the response, so that the reward reads what it adds",
    )
    nameless: bool = Field(
        False,
        description="score it again with every owner's name masked; the higher score counts",
    )
    floor: Number = Field(
        1.0,
        ge=0,
        le=1000,
        description="lower bound of a score, as a multiple of an empty text's: below it nothing more is earned",
    )
    nobody_weight: Number = Field(
        1.0,
        ge=0,
        le=1000,
        description="weight with which the probability of the background class, p(nobody|y), counts as attributable",
    )
    granularity: Literal["token", "slices", "sequence"] = Field(
        "token",
        description="where a response is scored: after each token, after each of k slices (paper), at its end",
    )
    slices: Count = Field(15, description="k, the slices of a response")
    prefix_mean: bool = Field(
        False, description="a score is the mean of those of all prefixes up to it (paper)"
    )
    credit: Literal["level", "difference"] = Field(
        "difference",
        description="difference: each token is rewarded for the change that it makes (potential-based); "
        "level: each answers for all before it (paper)",
    )
    kl: Number = Field(
        0.1, ge=0, le=1000, description="λ: weight of the KL term to `method.anchor` in the reward"
    )
    length_penalty: NonNegative = Field(
        1.0, description="subtracted at the last token of a response without end"
    )
    empty_penalty: NonNegative = Field(1.0, description="subtracted where a response has no words")
    repetition_penalty: NonNegative = Field(
        1.0, description="subtracted at each token that completes a repeated 4-gram"
    )
    fluency: NonNegative = Field(0.0, description="weight of the reference log-likelihood of each token")
    fluency_clip: Positive = Field(5.0, description="the reference log-likelihood is cut off at minus this")


class AdvantageConfig(Strict):
    """From rewards to advantages. `rloo` and `grpo` compare the rollouts of a prompt and need no critic."""

    estimator: Literal["critic", "rloo", "grpo"] = Field(
        "critic",
        description="what a return is compared with: a critic's value, the mean of the prompt's other rollouts (RLOO), "
        "or mean and deviation of all of them (GRPO)",
    )
    gamma: Share = Field(0.6, description="γ, the discount of a token's reward for each token before it")
    gae_lambda: Share = Field(
        1.0, description="λ of generalised advantages; 1 gives A = R - V, the paper's body"
    )
    mode: Literal["scaled", "whitened", "raw"] = Field(
        "scaled",
        description="scaled by a constant, whitened over the batch (the paper's appendix), or as they are",
    )
    scale: Positive = Field(4.0, description="scaled: A = (R - V)·(1-γ)·scale; not centred")


class StopConfig(Strict):
    """Held-out early stopping; looked at after every batch of rollouts."""

    attribution: Share | Literal["wrong_answers", "counterfactual"] | None = Field(
        None,
        description="stop once the stopping attributor's score is at or below this; wrong_answers: below what the "
        "forget queries' wrong answers score, 0.05 where the data has none; counterfactual: below what the original "
        "model's answers about people who do not exist score; null: never",
    )
    kl: Positive | None = Field(
        None, description="stop once KL(π ‖ π_N) per token on rollouts passes this; null: never"
    )
    unhealthy: Share | None = Field(
        0.25,
        description="stop, and keep the last good weights, once this share of answers is broken; null: never",
    )
    patience: Count = Field(1, description="batches of rollouts in a row that a rule must hold for")


class RetainPromptsConfig(Strict):
    """Retain prompts among those that are sampled: what the original itself answers to them earns most."""

    share: Number = Field(0.0, ge=0, lt=1, description="share of the sampled prompts that are retain prompts")
    boundary: Share = Field(
        0.0, description="share of the retain prompts that are those nearest to a forget prompt"
    )


class RefusalOptim(Optim):
    """How refusals are learnt."""

    lr: Number = Field(3e-4, gt=0, le=10, description="learning rate at its highest")
    epochs: Number = Field(3, gt=0, le=10_000, description="passes over the data; parts of one are allowed")
    batch_size: Count = Field(20, description="rows of an optimizer step")


class RefusalPhase(Strict):
    """Before the reinforcement: learn refusals to the forget prompts by their likelihood."""

    optim: RefusalOptim = Field(RefusalOptim(), description="how refusals are learnt")
    retain: Literal["none", "nll", "kl"] = Field("nll", description="retain term beside it")
    retain_weight: NonNegative = Field(1.0, description="weight of the retain term")


class WarmStartOptim(UnlearningOptim):
    """How the counterfactual teacher is learnt."""

    name: Literal["adamw", "muon"] = Field(
        "muon", description="as method.optim.name of method=counterfactual"
    )
    lr: Number = Field(6e-3, gt=0, le=10, description="learning rate at its highest")
    epochs: Number = Field(
        5, gt=0, le=10_000, description="passes over the forget set; parts of one are allowed"
    )
    batch_size: Count = Field(20, description="forget rows of an optimizer step")
    min_steps: Whole = Field(25, description="optimizer steps at least, as method.optim.min_steps")
    warmup_ratio: Share = Field(0.1, description="share of the steps in which the learning rate rises from 0")


class WarmStart(Strict):
    """Before the reinforcement: counterfactual distillation (`method=counterfactual`), so that rollouts begin where the
    facts are gone from the likelihoods already.
    """

    optim: WarmStartOptim = Field(WarmStartOptim(), description="how the teacher is learnt")
    names: Count = Field(1, description="fictitious names an owner")
    level_weight: NonNegative = Field(
        1.8,
        description="weight of the distance between facts and what a model that never saw them gives them",
    )
    top_k: TopK = Field(256, description="tokens of each teacher distribution that are kept")
    retain: Literal["nll", "kl"] = Field(
        "nll", description="retain term: likelihood of the retain answers, or KL to the original"
    )
    retain_weight: NonNegative = Field(6.0, description="weight of the retain term")
    retain_batch_size: Count | None = Field(
        40, description="retain rows beside each update; null: as many as there are forget rows"
    )
    scrambled_batch_size: Whole = Field(
        10, description="rows with answers of random words beside each update; 0: none"
    )
    scrambled_weight: NonNegative = Field(1.0, description="weight of KL to the original on them")


class DareUOptim(OptimBase):
    """How the policy is updated."""

    lr: Number = Field(1.2e-3, gt=0, le=10, description="learning rate at its highest")
    warmup_ratio: Share = Field(0.3, description="share of the steps in which the learning rate rises from 0")
    save_every: Count = Field(10, description="optimizer steps between checkpoints")


class VllmConfig(Strict):
    """vLLM beside the training (colocate), or on a server that `trl vllm-serve` started."""

    mode: Literal["colocate", "server"] = Field(
        "colocate", description="colocate: in the training process, on its GPU; server: one of its own"
    )
    memory_share: Number = Field(
        0.3, gt=0, le=1, description="colocate: share of the GPU's memory that vLLM takes"
    )
    tensor_parallel: Count = Field(1, description="colocate: GPUs that a layer is cut over")
    sleep: bool = Field(
        False, description="colocate: vLLM gives its memory back during updates, at the cost of waking up"
    )
    max_length: Count | None = Field(
        None, description="colocate: tokens of a prompt and its response at most; null: the model's context"
    )
    server_url: Text | None = Field(
        None,
        description="server: its address, such as http://localhost:8000; null: port 8000 of this machine",
    )
    server_timeout: Number = Field(
        240.0, gt=0, le=86_400, description="server: seconds to wait until it answers"
    )
    model_impl: Literal["vllm", "transformers"] = Field(
        "vllm", description="whose code of the model vLLM runs"
    )


class DareUConfig(MethodBase):
    """DareU: PPO against the attribution classifier, distillation on the retain set; and its kin, which differ in
    `reward.kind` and `advantage.estimator`.

    Its length is data_epochs · ⌈forget prompts / prompts_per_batch⌉ · updates_per_batch updates, times the parts that
    `rollouts_per_update` cuts a batch into, so `optim` has no steps, epochs or batch_size.
    """

    kind: Literal["rl"] = Field("rl", description="a method that samples and rewards what it sampled")
    optim: DareUOptim = Field(DareUOptim(), description="how the policy is updated")
    reward: RewardConfig = Field(RewardConfig(), description="the reward")
    advantage: AdvantageConfig = Field(AdvantageConfig(), description="from rewards to advantages")
    stop: StopConfig = Field(StopConfig(), description="early stopping")
    retain_prompts: RetainPromptsConfig = Field(
        RetainPromptsConfig(), description="retain prompts among those that are sampled"
    )
    refusal_phase: RefusalPhase | None = Field(
        None, description="learn refusals first (RULE); null: begin with the rewards"
    )
    warm_start: WarmStart | None = Field(
        None, description="counterfactual distillation first; null: begin with the rewards"
    )
    data_epochs: Count = Field(7, description="passes over the forget prompts")
    prompts_per_batch: Count | None = Field(
        40, description="prompts of a batch of rollouts; null: all that an epoch has, sampled at once"
    )
    num_generations: Count = Field(1, description="rollouts of a prompt in a batch")
    updates_per_batch: Count = Field(2, description="updates on each rollout")
    rollouts_per_update: Count | None = Field(
        20, description="rollouts of an update: a batch is cut into such parts; null: the whole batch"
    )
    temperature: Number = Field(0.8, ge=0.01, le=100, description="temperature of rollouts")
    top_p: Number = Field(1.0, gt=0, le=1, description="rollouts are sampled from this share of the mass")
    max_new_tokens: Count | None = Field(
        None, description="tokens of a rollout at most; null: the longest response + 8"
    )
    clip: Number = Field(0.2, gt=0, le=100, description="ε of PPO: ratios count up to 1 ± ε")
    distill: NonNegative = Field(2.0, description="λ_dis: weight of KL to the original on retain samples")
    distill_every: Count = Field(1, description="updates between those with distillation")
    value_coef: NonNegative = Field(0.2, description="weight of the critic's loss")
    value_clip: Number | None = Field(
        None, gt=0, le=1000, description="the critic's values move no further in an update; null: no limit"
    )
    critic_lr: Number | None = Field(
        1e-3, gt=0, le=10, description="learning rate of the critic; null: the policy's"
    )
    entropy_coef: Number = Field(
        0.0, ge=-1000, le=1000, description="weight of the policy's entropy in the loss"
    )
    merge_rollouts: bool = Field(True, description="LoRA: sample through merged weights, which is faster")
    use_vllm: bool = Field(False, description="sample with vLLM (extra `vllm`)")
    vllm: VllmConfig = Field(VllmConfig(), description="how vLLM samples, where use_vllm is true")
    kl_loss: NonNegative = Field(
        0.0, description="weight of KL(π ‖ anchor) on rollouts in the loss, as GRPO has it"
    )
    anchor: Literal["original", "counterfactual"] = Field(
        "original",
        description="what reward.kl and kl_loss pull the rollouts towards: the original model, or what it says with a "
        "fictitious name in the owner's place",
    )
    offpolicy: Share = Field(
        0.0,
        description="share of the forget rollouts that are gold answers in place of samples, each token weighted by "
        "the policy's probability of it",
    )

    @model_validator(mode="after")
    def _go_together(self) -> DareUConfig:
        if self.refusal_phase and self.warm_start:
            raise ValueError("refusal_phase and warm_start exclude one another: which one comes first?")
        if self.offpolicy and self.use_vllm:
            raise ValueError(
                "offpolicy and use_vllm exclude one another: vLLM's likelihoods are of what it sampled"
            )
        if self.advantage.estimator != "critic" and self.num_generations < 2:
            raise ValueError(
                f"advantage.estimator={self.advantage.estimator} compares the rollouts of a prompt with one another: "
                f"num_generations must be at least 2, not {self.num_generations}; or choose estimator=critic"
            )
        return self

    @property
    def algorithm(self) -> str:
        """Which method of the registry this configures."""
        kin = {"refusal": "rule", "forbidden_words": "purge", "dissimilarity": "demem"}
        return kin.get(self.reward.kind, "dareu")

    @property
    def reads_names(self) -> bool:
        """Whether a fictitious name stands in for an owner's somewhere."""
        return bool(
            self.warm_start or self.anchor == "counterfactual" or self.stop.attribution == "counterfactual"
        )

    @property
    def reads_attributor(self) -> bool:
        """Whether reward or early stopping ask an attributor."""
        return self.reward.kind == "attribution" or self.stop.attribution is not None


# The default of `method`; configs/method/dareu_warm.yaml says the same.
DAREU_WARM = DareUConfig(
    name="dareu_warm",
    optim=DareUOptim(lr=1e-4),
    data_epochs=1,
    distill=4.0,
    anchor="counterfactual",
    warm_start=WarmStart(),
)
