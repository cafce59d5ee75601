"""The measurement that most probes repeat: what a model still says, and how likely it finds what it should not."""

import math
from collections.abc import Sequence

from dareu.data.corpus import Sample
from dareu.evaluation.metrics.rouge import exact_answer, rouge_recall
from dareu.evaluation.probes.base import Values
from dareu.evaluation.subject import Subject


def knowledge(
    subject: Subject, samples: Sequence[Sample], prompts: Sequence[str] | None = None
) -> list[Values]:
    """`rouge_l` (recall), `exact` and `probability` of the reference, for each of `samples`.

    `prompts`: other questions in place of the samples' own, one each, not yet rendered.
    """
    questions = [s.prompt for s in samples] if prompts is None else prompts
    answers = subject.answers(subject.rendered(questions), subject.limit(samples).wanted)
    nlls = subject.nlls(subject.pairs(questions, [s.response for s in samples]))
    means = [total / max(count, 1) for total, count in nlls]
    return [
        {
            "rouge_l": rouge_recall(sample.response, answer.text),
            "exact": exact_answer(sample.response, answer.text),
            "probability": math.exp(-nll) if math.isfinite(nll) else None,
        }
        for sample, answer, nll in zip(samples, answers, means, strict=True)
    ]
