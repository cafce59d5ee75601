"""The measurement that most probes repeat: what a model still says, and how likely it finds what it should not."""

import math
from collections.abc import Sequence
from typing import Any

from dareu.data.corpus import Sample
from dareu.data.render import render_prompt
from dareu.evaluation.metrics.rouge import rouge_recall
from dareu.evaluation.model_metrics.answers import gold_nlls, greedy_answers, is_exact
from dareu.evaluation.probes.base import ProbeInput, Values


def knowledge(
    model: Any,
    tokenizer: Any,
    inputs: ProbeInput,
    samples: Sequence[Sample] | None = None,
    prompts: Sequence[str] | None = None,
) -> list[Values]:
    """`rouge_l` (recall), `exact` and `probability` of the reference, for each forget sample (or each of `samples`).

    `prompts`: other questions in place of the samples' own, one each, not yet rendered.
    """
    chosen = inputs.split.forget if samples is None else samples
    task = inputs.split.task
    questions = [s.prompt for s in chosen] if prompts is None else list(prompts)
    rendered = [render_prompt(tokenizer, question, task) for question in questions]
    answers = greedy_answers(model, tokenizer, chosen, rendered, task, inputs.batch_size)
    nlls = gold_nlls(model, tokenizer, chosen, questions, task, inputs.batch_size)
    return [
        {
            "rouge_l": rouge_recall(sample.response, answer.text),
            "exact": is_exact(sample.response, answer.text),
            "probability": math.exp(-nll) if math.isfinite(nll) else None,
        }
        for sample, answer, nll in zip(chosen, answers, nlls, strict=True)
    ]
