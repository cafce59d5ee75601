"""What early stopping reads of a batch of rollouts: held-out attribution, and the health of the text."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dareu.attribution.base import Attributor
from dareu.attribution.name_masking import NameMasker
from dareu.attribution.score import forget_mass
from dareu.config import DareUConfig
from dareu.data.corpus import Sample
from dareu.data.fictitious_names import replace_name
from dareu.evaluation.metrics.text_health import broken_shares
from dareu.methods.base import MethodContext

NO_WRONG_ANSWERS = 0.05  # where to stop where the data has no wrong answers to measure


class StoppingMonitor:
    """The stopping attributor's forget mass on a batch of rollouts, if there is one, and the health of their text."""

    def __init__(
        self,
        attributor: Attributor | None,
        forget_owners: Sequence[str] = (),
        masker: NameMasker | None = None,
    ) -> None:
        self.attributor, self.forget_owners, self.masker = attributor, list(forget_owners), masker

    def level(self, texts: Sequence[str], queries: Sequence[str]) -> float:
        """Mean forget mass of `texts`, answers to `queries`, in [0, 1]."""
        assert self.attributor is not None
        if self.masker is not None:
            texts = [self.masker.text(query, text) for query, text in zip(queries, texts, strict=True)]
        probabilities = self.attributor.probabilities(list(texts))
        return float(np.mean(forget_mass(probabilities, self.attributor.owners, self.forget_owners)))

    def __call__(
        self, texts: Sequence[str], finished: Sequence[bool], owners: Sequence[str], queries: Sequence[str]
    ) -> dict[str, float]:
        attribution = {"attribution": self.level(texts, queries)} if self.attributor else {}
        return attribution | broken_shares(texts, finished)


def counterfactual_answers(
    context: MethodContext, fakes: Mapping[str, tuple[str, list[str]]], limit: int
) -> list[str]:
    """What `context.policy` answers to each forget query with a fictitious name, the owner's name put back.

    `fakes`: owner → (name in the text, fictitious names, of which the first is taken); `limit`: tokens of an answer.
    """
    names = [(fakes[str(s.owner)][0], fakes[str(s.owner)][1][0]) for s in context.split.forget]
    asked = [
        replace_name(s.prompt, name, other)[0]
        for s, (name, other) in zip(context.split.forget, names, strict=True)
    ]
    return [
        replace_name(answer.text, other, name)[0]
        for answer, (name, other) in zip(context.answers(asked, limit), names, strict=True)
    ]


def with_level(
    method: DareUConfig,
    monitor: StoppingMonitor,
    forget: Sequence[Sample],
    counterfactual: Callable[[], Sequence[str]],
) -> DareUConfig:
    """`stop.attribution` as a number, an estimate of the retrained model's level.

    A wrong answer to a forget query is what a model that never saw the owner would give: it has the question's words
    right, the name among them, and the facts wrong. So are the original model's answers about people who do not exist
    (`counterfactual`, one a forget query): it never saw them.
    """
    if method.stop.attribution == "wrong_answers":
        scored = [(text, sample.prompt) for sample in forget for text in sample.wrong_responses]
    elif method.stop.attribution == "counterfactual":
        scored = [(text, sample.prompt) for text, sample in zip(counterfactual(), forget, strict=True)]
    else:
        return method
    level = monitor.level(*zip(*scored, strict=True)) if scored else NO_WRONG_ANSWERS
    return method.model_copy(update={"stop": method.stop.model_copy(update={"attribution": level})})
