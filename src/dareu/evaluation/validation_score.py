"""One figure by which weights are chosen while a method trains: how near a model's answers are to a target's."""

from dataclasses import replace

from dareu.config import EvaluationConfig
from dareu.data.corpus import Split
from dareu.data.split import part_of
from dareu.evaluation.metrics.rouge import rouge_recall
from dareu.evaluation.metrics.text_health import broken_shares
from dareu.evaluation.subject import Subject
from dareu.evaluation.suite import evaluated_rows

Levels = dict[str, float]


def answer_levels(subject: Subject, split: Split, config: EvaluationConfig, seed: int) -> Levels:
    """What a model answers to the validation part of a split.

    Returns:
        `forget` and `retain`: mean ROUGE-L recall in [0, 1]; `broken`: the larger share of empty or repetitive forget
        answers. The test set is left out, as are holdout samples; `evaluation.retain_limit` holds.
    """
    part = replace(part_of(split, "validation", config.validation_share), test=(), holdout=())
    rows = evaluated_rows(part, config.retain_limit, seed)
    samples = [sample for _, _, sample in rows]
    prompts = subject.rendered([sample.prompt for sample in samples])
    answers = subject.answers(prompts, subject.limit(samples).wanted)
    levels: Levels = {}
    for name in ("forget", "retain"):
        recalls = [
            rouge_recall(sample.response, answer.text)
            for (of, _, sample), answer in zip(rows, answers, strict=True)
            if of == name
        ]
        known = [recall for recall in recalls if recall is not None]
        levels[name] = sum(known) / len(known) if known else 0.0
    own = [answer for (of, _, _), answer in zip(rows, answers, strict=True) if of == "forget"]
    shares = broken_shares([answer.text for answer in own], [answer.finished for answer in own])
    levels["broken"] = max(shares["empty"], shares["repetitive"])
    return levels


def closeness(levels: Levels, target: Levels) -> float:
    """(1 − |f − f*|) · (1 − |r − r*|) · (1 − max(0, b − b*)): Tug-of-War on forget and retain answers, less what is
    broken beyond the target's. In [0, 1], higher is better.
    """
    near = (1 - abs(levels[name] - target[name]) for name in ("forget", "retain"))
    score = 1 - max(0.0, levels["broken"] - target["broken"])
    for one in near:
        score *= one
    return score
