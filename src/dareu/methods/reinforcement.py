"""The methods that sample: DareU and its kin, which differ in their settings alone (reward, advantage, prompts)."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from dareu.attribution.name_masking import NameMasker
from dareu.attribution.registry import is_made
from dareu.config import DareUConfig, RewardConfig, RunConfig
from dareu.config.params import check_names, read_settings
from dareu.data.boundary_prompts import retain_count, retain_prompts
from dareu.data.corpus import Sample, Split
from dareu.data.refusals import load_refusals
from dareu.data.render import encode, render_prompt
from dareu.errors import DataError, require
from dareu.evaluation.metrics.rouge import rouge_l
from dareu.methods.base import Method, MethodContext
from dareu.methods.counterfactual import CounterfactualSettings, fakes_for, teachers_for, teachers_key
from dareu.methods.distillation import TARGETS, stored_targets
from dareu.methods.monitors import StoppingMonitor, counterfactual_answers, with_level
from dareu.models.passes import word_vectors
from dareu.rewards.registry import REWARDS, RewardContext, find_reward
from dareu.training.common import rollout_batch

if TYPE_CHECKING:
    from dareu.rewards.base import Prompt, Reward
    from dareu.training.critic import Critic
    from dareu.training.losses import SoftTargets
    from dareu.training.rollouts import Step


REFUSALS_KEY = "method.reward.refusals"


class Reinforcement(Method):
    """Configured by `DareUConfig`. `step` makes the step of an update from settings and reward."""

    engine = "dareu.training.rl_trainer"

    def __init__(self, step: Callable[[DareUConfig, Reward], Step]) -> None:
        self.step = step

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        method = settings_of(config)
        read_reward(method.reward)
        load_refusals(method.reward.refusals, REFUSALS_KEY)
        if method.use_vllm:
            require("vllm", "method.use_vllm=true", "vllm")
        if split is not None:
            if method.stop.attribution == "counterfactual":
                fakes = fakes_for(split, 1, config)
                if unnamed := [owner for owner, (_, made) in fakes.items() if not made]:
                    raise DataError(
                        f"There are no fictitious names for {', '.join(unnamed[:3])}: their texts contain no name, or "
                        "too few other owners have one.",
                        "Set method.stop.attribution to null or a number.",
                    )
            added = retain_count(len(split.forget), len(split.retain), method.retain_prompts.share)
            rollout_batch(method, len(split.forget) + added)

    def key(self, config: RunConfig, stage_key: Callable[[str], str]) -> dict[str, Any]:
        method = settings_of(config)
        read: dict[str, Any] = teachers_key(config) if method.reads_names else {}
        if self.reads_attributor(config):
            read["attributor"] = stage_key("attributor")
        elif method.advantage.estimator == "critic":
            read["critic"] = config.attributor.backbone.model_dump()
        if method.refusal_phase or find_reward(method.reward.kind).reads_refusals:
            read["refusals"] = load_refusals(method.reward.refusals, REFUSALS_KEY)
        return read

    def reads_calibration(self, config: RunConfig) -> bool:
        return settings_of(config).warm_start is not None

    def replaces_names(self, config: RunConfig) -> bool:
        return settings_of(config).warm_start is not None

    def reads_attributor(self, config: RunConfig) -> bool:
        method = settings_of(config)
        return find_reward(method.reward.kind).reads_attributor or self.stops_by_attributor(config)

    def stops_by_attributor(self, config: RunConfig) -> bool:
        return settings_of(config).stop.attribution is not None

    def run(self, context: MethodContext) -> dict[str, Any]:
        from dareu.models.load import freeze_original
        from dareu.training.anchor import CounterfactualAnchor
        from dareu.training.loss_spec import FINETUNE
        from dareu.training.rl_trainer import train_rl
        from dareu.training.supervised_phase import FORGET_FACTS, learn_first

        config, method = context.config, settings_of(context.config)
        policy, tokenizer, task = context.policy, context.tokenizer, context.corpus.task
        targets = warm_targets(context) if method.warm_start else []  # the policy is the original still
        reference, length = freeze_original(policy), config.model.max_length
        fakes = fakes_for(context.split, 1, config) if method.reads_names else {}
        draw = random.Random(config.seed)
        limit, refusals = method.max_new_tokens or context.response_limit, []
        if method.refusal_phase:
            known = load_refusals(method.reward.refusals, REFUSALS_KEY)
            refusals = [
                encode(tokenizer, s.prompt, draw.choice(known), task, length) for s in context.split.forget
            ]
            limit = max(limit, *(len(row.response_ids) for row in refusals))
        prompts = make_prompts(context, limit)  # before the policy learns anything
        monitors = self.reads_attributor(config) and is_made(
            config.attributor.name, "stop", self.stops_by_attributor(config)
        )
        reward, critic, monitor = make_reward(context, self.reads_attributor(config), monitors)
        if method.stop.attribution is not None:
            method = with_level(
                method,
                monitor,
                context.split.forget,
                lambda: counterfactual_answers(context, fakes, limit),
            )
        retain_rows = context.encode(context.split.retain)
        common: dict[str, Any] = {"retain_rows": retain_rows, "seed": config.seed, "device": context.device}
        done: dict[str, Any] = {}
        if first := method.refusal_phase:
            done["refusal_phase"] = learn_first(
                policy,
                tokenizer,
                "refusals",
                context.work,
                method=FINETUNE,
                optim=first.optim,
                rows=refusals,
                retain=first.retain,
                retain_weight=first.retain_weight,
                reference=reference if first.retain == "kl" else None,
                **common,
            )
        if warm := method.warm_start:
            done["warm_start"] = learn_first(
                policy,
                tokenizer,
                "teachers",
                context.work,
                method=FORGET_FACTS,
                params={"level_weight": warm.level_weight},
                optim=warm.optim,
                rows=context.encode(context.split.forget),
                targets=targets,
                retain=warm.retain,
                retain_weight=warm.retain_weight,
                retain_batch_size=warm.retain_batch_size,
                scrambled_batch_size=warm.scrambled_batch_size,
                scrambled_weight=warm.scrambled_weight,
                reference=reference,
                **common,
            )
        outcome = train_rl(
            policy,
            tokenizer,
            config=method,
            step=self.step(method, reward),
            reference=reference,
            prompts=prompts,
            retain_rows=retain_rows,
            critic=critic,
            monitor=monitor,
            max_new_tokens=limit,
            seed=config.seed,
            device=context.device,
            work=context.work,
            anchor=CounterfactualAnchor(tokenizer, fakes, task, length, config.evaluation.batch_size)
            if method.anchor == "counterfactual"
            else None,
        )
        return {
            "steps": outcome.updates,
            "stopped": outcome.stopped,
            "stop_attribution": method.stop.attribution,
            **done,
        }


def read_reward(config: RewardConfig) -> RewardConfig:
    """The reward's configuration, `params` as the reward takes them.

    Raises:
        ConfigError: There is no such reward, or one of its parameters is unknown or of a wrong type or value.
    """
    key, takes = "method.reward.params", find_reward(config.kind).takes
    if config.kind in REWARDS or takes is not None:
        check_names(f"reward '{config.kind}'", key, config.params, takes.model_fields if takes else ())
    if takes is None:
        return config
    return config.model_copy(update={"params": read_settings(takes, config.params, key).model_dump()})


def warm_targets(context: MethodContext) -> Sequence[SoftTargets]:
    """The counterfactual teachers of the warm start."""
    phase = settings_of(context.config).warm_start
    assert phase is not None
    settings = CounterfactualSettings.model_validate(
        phase.model_dump(include=set(CounterfactualSettings.model_fields))
    )
    return stored_targets(context.work.folder / TARGETS, lambda: teachers_for(context, settings))


def settings_of(config: RunConfig) -> DareUConfig:
    """`config.method` of a method that samples."""
    assert isinstance(config.method, DareUConfig)
    return config.method


def make_prompts(context: MethodContext, limit: int) -> list[Prompt]:
    """Forget prompts, and the retain prompts that `retain_prompts` adds, with what the policy answers to these now."""
    from dareu.models.generate import end_ids
    from dareu.rewards.base import Prompt

    config, method, tokenizer = context.config, settings_of(context.config), context.tokenizer
    split = context.split
    gold: list[tuple[int, ...]] = [()] * len(split.forget)
    if method.offpolicy:
        ends = end_ids(context.policy, tokenizer)
        gold = [as_rollout(row.response_ids, ends, limit) for row in context.encode(split.forget)]
    added = retain_prompts(
        split.forget, split.retain, method.retain_prompts.share, method.retain_prompts.boundary, config.seed
    )
    own = context.answers([sample.prompt for sample, _ in added], limit)

    def prompt(s: Sample, **more: Any) -> Prompt:
        rendered = render_prompt(tokenizer, s.prompt, context.corpus.task)
        return Prompt(rendered, s.prompt, str(s.owner), s.response, **more)

    return [prompt(s, answer_ids=ids) for s, ids in zip(split.forget, gold, strict=True)] + [
        prompt(s, own=answer.text, kind="boundary" if close else "retain")
        for (s, close), answer in zip(added, own, strict=True)
    ]


def as_rollout(ids: Sequence[int], ends: Sequence[int], limit: int) -> tuple[int, ...]:
    """An encoded answer as sampling returns one: up to its first token of `ends`, `limit` tokens at most."""
    last = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return tuple(ids[: min(last + 1, limit)])


def similarity(reference: str, response: str, part: Literal["f1", "recall"] = "f1") -> float:
    """ROUGE-L, in [0, 1]; the share of matching characters where the reference has nothing that ROUGE reads.

    F1, since recall alone could be raised by saying everything; recall as RULE's authors measure likeness.
    """
    score = rouge_l(reference, response)
    if score is None:
        return SequenceMatcher(None, reference, response).ratio()
    return float(getattr(score, part))


def make_reward(
    context: MethodContext, reads_attributor: bool, monitors: bool
) -> tuple[Reward, Critic | None, StoppingMonitor]:
    """Reward, critic and monitor; attributors are loaded only where one of them is read.

    `monitors`: whether the stopping attributor reads the rollouts, for the stopping rule or for the log alone.
    """
    from dareu.rewards.base import MixedReward, TextReward

    method, kind = settings_of(context.config), find_reward(settings_of(context.config).reward.kind)
    masker = NameMasker.fit(context.corpus.samples) if reads_attributor and method.reward.blind else None
    reward = kind.build(
        RewardContext(
            read_reward(method.reward),
            context.corpus,
            context.split,
            context.forgotten,
            context.tokenizer,
            context.device,
            context.attributor,
            similarity,
            partial(similarity, part="recall"),
            lambda listed: word_vectors(context.policy, context.tokenizer, listed),
            masker,
        )
    )
    critic = make_critic(context, reward) if method.advantage.estimator == "critic" else None
    if method.retain_prompts.share and not kind.scores_retain:
        # In [−1, 0], so that an answer that stays as it was costs nothing.
        helpful = TextReward(lambda text, prompt: similarity(prompt.own, text) - 1.0)
        reward = MixedReward(reward, helpful)
    stopping = context.attributor("stop") if monitors else None
    return reward, critic, StoppingMonitor(stopping, context.forgotten, masker)


def make_critic(context: MethodContext, reward: Reward) -> Critic:
    """On a copy of the reward classifier's backbone where that reads the policy's tokens, else from scratch."""
    from dareu.training.critic import Critic, fresh_critic

    scorer = getattr(reward, "scorer", None)
    if getattr(scorer, "on_ids", False):
        backbone = copy.deepcopy(scorer.attributor.model.base_model)  # type: ignore[union-attr]
        return Critic(backbone, backbone.config.hidden_size)
    return fresh_critic(context.config.attributor.backbone, len(context.tokenizer), context.config.seed)
