"""How likely a model that never saw an answer finds each of its tokens, told without training such a model.

Two things tell: the base model, which has not seen the answer, and the answers of the owners who stay, from which the
retrained model learns how such answers are worded. The likelier of the two counts. On owners that nobody saw, the
original model itself is such a model: a line through its log-probabilities there says how they follow from that.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import repeat
from random import Random

import torch
from torch import Tensor

NAME = -2  # stands for each token of an owner's name
LOWEST = -14.0  # log-probability below which nothing is told apart
SAME = 8  # answers to one question below which they are read as all others are
FEW = 100  # tokens below which a line says nothing
NEAR = 60  # places on each side of an estimate among which its residual is drawn
FACT = 0.8  # a token that was never seen is a fact below this share of what the original gives it
STRETCH = 1.2  # how much further from their mean levels are set than expected: training takes it back
USUAL = (-0.15, 1.6)  # start and slope of a line where none can be fitted


class Bigrams:
    """Log-probability of a token after the one before it, by Witten and Bell's interpolation (1991).

    P(x | a) = (count(a x) + t · P(x)) / (count(a) + t) with t the number of different tokens after a; P(x) is mixed
    with the uniform distribution over the vocabulary in the same way. A token that begins an answer has its own a.

    Where `SAME` answers or more have one question, owners' names apart, what they have after a comes on top of that,
    then what they have after a at the same place, and after a and the token before it: the form of a date or of a
    number is plain from these alone.

    Args:
        answers: Token ids of each answer, `NAME` for those of a name.
        questions: The question of each answer, with something else in the owner's name's place, "" for texts
            without one; None: not known.
    """

    def __init__(
        self, answers: Sequence[Sequence[int]], vocabulary: int, questions: Sequence[str] | None = None
    ) -> None:
        self.vocabulary = vocabulary
        self.often = {question for question, n in Counter(questions or ()).items() if question and n >= SAME}
        self.after: defaultdict[Hashable, Counter[int]] = defaultdict(Counter)
        for ids, question in zip(answers, questions or repeat(None), strict=False):
            for place, token in enumerate(ids):
                contexts = self._contexts(ids, place, question)
                if place and ids[place - 1] == token == NAME:
                    contexts = contexts[:1]  # a name counts as one token, however many it has
                for context in contexts:
                    self.after[context][token] += 1

    def logprobs(self, ids: Sequence[int], question: str | None = None) -> Tensor:
        """Of each token of an answer, (T,)."""
        probabilities = []
        for place, token in enumerate(ids):
            p = 1.0 / self.vocabulary
            for context in self._contexts(ids, place, question):
                p = _interpolated(self.after.get(context, Counter()), token, p)
            probabilities.append(p)
        return torch.tensor(probabilities).log()

    def _contexts(self, ids: Sequence[int], place: int, question: str | None) -> list[Hashable]:
        """What a token is counted after, from the most general to the most particular."""
        two, before = [-1, -1, *ids][place : place + 2]
        if question not in self.often:
            return [None, before]
        same = (question, before)
        return [None, before, same, (*same, "place", place), (*same, "after", two)]


def _interpolated(counts: Counter[int], token: int, below: float) -> float:
    kinds = len(counts)
    return (counts[token] + kinds * below) / (counts.total() + kinds) if kinds else below


@dataclass(frozen=True)
class Line:
    """ln p ≈ start + slope · hint, with `hint` the log-probability that base or bigrams give the token.

    Attributes:
        fitted: The line's values where it was fitted, in ascending order, (N,).
        residuals: What was found there above them, (N,).
        unclear: A hint above this tells nothing: the token is taken for one that any model knows.
    """

    start: float
    slope: float
    fitted: Tensor
    residuals: Tensor
    unclear: float = math.inf

    def draw(self, hints: Tensor, random: Random) -> Tensor:
        """The line's values at `hints` (T,), each with a residual from where it has a value nearby: so the results
        spread as what was found does.
        """
        value = self.start + self.slope * hints
        count = len(self.residuals)
        drawn = []
        for place in torch.searchsorted(self.fitted, value.contiguous()).tolist():
            first = max(0, min(place - NEAR, count - 2 * NEAR))
            drawn.append(random.randrange(first, min(first + 2 * NEAR, count)))
        levels = (value + self.residuals[drawn]).clamp(min=LOWEST, max=0.0)
        return torch.where(hints > self.unclear, torch.zeros_like(levels), levels)


def stretched(expected: Sequence[Tensor]) -> list[Tensor]:
    """Log-probabilities (T,) for each answer, `STRETCH` times as far from the mean of those below ln `FACT`, 0 at most.

    Training towards them ends with less spread than they have; with this factor, with theirs (docs/dev/log.md).
    """
    every = torch.cat(list(expected))
    low = every[every < math.log(FACT)]
    if not len(low):
        return list(expected)
    mean = low.mean()
    return [(mean + STRETCH * (own - mean)).clamp(max=0.0) for own in expected]


def fit_line(logprobs: Tensor, hints: Tensor) -> Line:
    """The least squares line through the log-probabilities `logprobs` at `hints`, (N,) each."""
    x, y = hints.double(), logprobs.double()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum().clamp(min=1e-12)
    start = y.mean() - slope * x.mean()
    value = start + slope * x
    order = value.argsort()
    return Line(float(start), float(slope), value[order].float(), (y - value)[order].float())


def usual_line() -> Line:
    """For data without owners that nobody saw: rounded from what was found on generated corpora and on TOFU, whose
    residuals grow with the distance from 0 (docs/dev/log.md). Hints above .1 tell nothing: how the answers are worded
    may be new to the base and too rare for the bigrams, and would go with the facts.
    """
    start, slope = USUAL
    value = torch.linspace(LOWEST, 0.0, 100 * NEAR)
    even = (torch.arange(1, len(value) + 1) * 0.618034) % 1  # evenly spread over any few places in a row
    noise = torch.special.ndtri(even.clamp(min=0.002, max=0.998))
    return Line(start, slope, value, noise * (1.3 * value.abs()).clamp(max=2.7), math.log(0.1))
