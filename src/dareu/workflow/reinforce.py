"""The methods that sample: prompts, reward, critic and monitor for the one engine that they share."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from dareu.attribution.name_masking import Blinder
from dareu.config import DareUConfig
from dareu.data.boundary_prompts import retain_prompts
from dareu.data.corpus import Sample
from dareu.data.refusals import REFUSALS
from dareu.data.render import encode, encode_samples, render_prompt
from dareu.evaluation.metrics.rouge import rouge_l
from dareu.evaluation.metrics.text_health import broken_shares
from dareu.workflow.stages import Bench

if TYPE_CHECKING:
    from dareu.rewards.base import Asked, Reward
    from dareu.training.critic import Critic
    from dareu.workflow.scoring import StoppingMonitor

NO_WRONG_ANSWERS = 0.05  # where to stop where the data has no wrong answers to measure


def by_rl(bench: Bench, policy: Any, tokenizer: Any, work: Any) -> dict[str, Any]:
    """Unlearn `policy` in place. What the manifest says of how it ended."""
    from dareu.models.load import freeze_original, pick_device
    from dareu.training.rl_trainer import train_dareu
    from dareu.training.supervised_phase import learn_refusals

    config, method = bench.config, bench.config.method
    assert isinstance(method, DareUConfig)
    device = str(pick_device(config.device))
    reference = freeze_original(policy)
    length, task = config.model.max_length, bench.corpus.task
    draw = random.Random(config.seed)
    limit, refusals = method.max_new_tokens or bench.response_limit(tokenizer), []
    if method.refusal_phase:
        refusals = [
            encode(tokenizer, s.prompt, draw.choice(REFUSALS), task, length) for s in bench.split.forget
        ]
        limit = max(limit, *(len(row.response_ids) for row in refusals))
    asked = prompts(bench, method, policy, tokenizer, limit)  # before the policy learns anything
    reward, critic, monitor = _judges(bench, method, tokenizer, device)
    if method.stop.attribution is not None:
        method = _with_level(method, monitor, bench.split.forget)
    retain_rows = encode_samples(tokenizer, bench.split.retain, task, length)
    told: dict[str, Any] = {}
    if method.refusal_phase:
        told["refusal_phase"] = learn_refusals(
            policy,
            tokenizer,
            phase=method.refusal_phase,
            rows=refusals,
            retain_rows=retain_rows,
            reference=reference,
            seed=config.seed,
            device=device,
            work=work,
        )
    outcome = train_dareu(
        policy,
        tokenizer,
        config=method,
        reference=reference,
        asked=asked,
        retain_rows=retain_rows,
        reward=reward,
        critic=critic,
        monitor=monitor,
        max_new_tokens=limit,
        seed=config.seed,
        device=device,
        work=work,
    )
    return {
        "steps": outcome.updates,
        "stopped": outcome.stopped,
        "stop_attribution": method.stop.attribution,
        **told,
        **{k: v for k, v in asdict(outcome).items() if k not in ("updates", "stopped")},
    }


def prompts(bench: Bench, method: DareUConfig, policy: Any, tokenizer: Any, limit: int) -> list[Asked]:
    """Forget prompts, and the retain prompts that `retain_prompts` adds, with what `policy` answers to these now."""
    from dareu.models.generate import generate
    from dareu.rewards.base import Asked

    split, task = bench.split, bench.corpus.task
    added = retain_prompts(
        split.forget,
        split.retain,
        method.retain_prompts.share,
        method.retain_prompts.boundary,
        bench.config.seed,
    )
    rendered = [render_prompt(tokenizer, sample.prompt, task) for sample, _ in added]
    own = generate(
        policy, tokenizer, rendered, max_new_tokens=limit, batch_size=bench.config.evaluation.batch_size
    )
    return [
        Asked(render_prompt(tokenizer, s.prompt, task), s.prompt, str(s.owner), s.response)
        for s in split.forget
    ] + [
        Asked(text, s.prompt, str(s.owner), s.response, answer.text, "boundary" if close else "retain")
        for text, (s, close), answer in zip(rendered, added, own, strict=True)
    ]


def similarity(reference: str, response: str) -> float:
    """ROUGE-L F1, in [0, 1]; the share of matching characters where the reference has nothing that ROUGE reads.

    F1, since recall alone could be raised by saying everything.
    """
    score = rouge_l(reference, response)
    return SequenceMatcher(None, reference, response).ratio() if score is None else score.f1


def text_judge(method: DareUConfig, split: Any) -> Callable[[str, Asked], float]:
    """What `reward.kind` says of a response as a text, and of the prompt that it answers."""
    from dareu.rewards import text as judged

    cfg = method.reward
    if cfg.kind == "refusal":
        return lambda text, asked: judged.rule_reward(
            judged.refuses(text, REFUSALS),
            asked.kind == "forget",
            similarity(asked.answer, text),
            cfg.similar,
        )
    if cfg.kind == "forbidden_words":
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        forbidden = judged.forbidden_words(
            (s.response for s in split.forget),
            [s.response for s in split.retain],
            ENGLISH_STOP_WORDS,
            cfg.rare,
        )
        return lambda text, asked: judged.purge_reward(text, forbidden)
    return lambda text, asked: judged.dissimilarity(similarity(asked.answer, text))


def _judges(
    bench: Bench, method: DareUConfig, tokenizer: Any, device: str
) -> tuple[Reward, Critic | None, Any]:
    """Reward, critic and monitor; the attributors are loaded only where one of them is read."""
    from dareu.rewards.base import AttributionReward, MixedReward, TextReward
    from dareu.rewards.text import helpfulness
    from dareu.training.critic import Critic, fresh_critic

    split, shape = bench.split, bench.config.attributor.backbone
    blind = method.reads_attributor and method.reward.blind
    blinder = Blinder.fit(bench.corpus.samples) if blind else None
    critic: Critic | None = None
    reward: Reward
    if method.reward.kind == "attribution":
        from dareu.attribution.registry import load_attributor
        from dareu.workflow.scoring import AttributionScorer

        classifier = load_attributor(bench.attributor_folder("reward"), device)
        second = None
        if method.reward.nameless:
            second = (blinder or Blinder.fit(bench.corpus.samples)).of_owners(bench.corpus.owners)
        scorer = AttributionScorer(
            classifier, tokenizer, bench.forgotten, method.reward.target, blinder, second
        )
        reward = AttributionReward(scorer, method.reward)
        if method.advantage.estimator == "critic" and scorer.on_ids:
            backbone = copy.deepcopy(classifier.model.base_model)  # type: ignore[attr-defined]
            critic = Critic(backbone, backbone.config.hidden_size)
    else:
        reward = TextReward(text_judge(method, split))
    if method.advantage.estimator == "critic" and critic is None:
        critic = fresh_critic(
            len(tokenizer),
            shape.hidden_size,
            shape.intermediate_size,
            shape.layers,
            shape.heads,
            bench.config.seed,
        )
    if (
        method.retain_prompts.share and method.reward.kind != "refusal"
    ):  # RULE's own reward knows retain prompts
        helpful = TextReward(lambda text, asked: helpfulness(similarity(asked.own, text)))
        reward = MixedReward(reward, helpful)
    return reward, critic, _monitor(bench, method, device, blinder)


def _monitor(bench: Bench, method: DareUConfig, device: str, blinder: Blinder | None) -> Any:
    if not method.reads_attributor:
        return HealthMonitor()
    from dareu.attribution.registry import load_attributor
    from dareu.workflow.scoring import StoppingMonitor

    stopping = load_attributor(bench.attributor_folder("stop"), device)
    return StoppingMonitor(stopping, bench.forgotten, blinder)


class HealthMonitor:
    """Health of the text alone, for methods that read no attributor."""

    def __call__(
        self, texts: Sequence[str], finished: Sequence[bool], owners: Sequence[str], queries: Sequence[str]
    ) -> dict[str, float]:
        return broken_shares(texts, finished)


def _with_level(method: DareUConfig, monitor: StoppingMonitor, forget: Sequence[Sample]) -> DareUConfig:
    """`stop.attribution` as a number.

    A wrong answer to a forget query is what a model that never saw the owner would give: it has the question's words
    right, the name among them, and the facts wrong. What such answers score estimates the retrained model's level.
    """
    if method.stop.attribution != "wrong_answers":
        return method
    wrong = [(text, sample.prompt) for sample in forget for text in sample.wrong_responses]
    level = monitor.level(*zip(*wrong, strict=True)) if wrong else NO_WRONG_ANSWERS
    return method.model_copy(update={"stop": method.stop.model_copy(update={"attribution": level})})
