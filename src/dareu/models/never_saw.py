"""How likely a model that never saw an answer finds each of its tokens, told without training such a model.

Two things tell: the base model, which has not seen the answer, and the answers of the owners who stay, from which the
retrained model learns what such answers look like. On owners that nobody saw, the original model itself is such a
model; a line through its log-probabilities there says how much each of the two counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

LOWEST = -14.0  # log-probability below which nothing is told apart
FEW = 100  # tokens below which a line says nothing
NEAR = 60  # places on each side of an estimate among which its residual is drawn
USUAL_WITH_BASE = (0.3, 0.12, 1.4)
USUAL = (0.2, 0.8)


class Bigrams:
    """Log-probability of a token after the one before it, by Witten and Bell's interpolation (1991).

    P(x | a) = (count(a x) + t · P(x)) / (count(a) + t) with t the number of different tokens after a; P(x) is mixed
    with the uniform distribution over the vocabulary in the same way. A token that begins an answer has its own a.
    """

    def __init__(self, answers: Sequence[Sequence[int]], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.alone: Counter[int] = Counter()
        self.after: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for ids in answers:
            self.alone.update(ids)
            for before, token in zip([-1, *ids], ids, strict=False):
                self.after[before][token] += 1

    def logprobs(self, ids: Sequence[int]) -> Tensor:
        """Of each token of an answer, (T,)."""
        found = []
        for before, token in zip([-1, *ids], ids, strict=False):
            p = _interpolated(self.alone, token, 1.0 / self.vocabulary)
            found.append(_interpolated(self.after.get(before, Counter()), token, p))
        return torch.tensor(found).log()


def _interpolated(counts: Counter[int], token: int, below: float) -> float:
    kinds = len(counts)
    return (counts[token] + kinds * below) / (counts.total() + kinds) if kinds else below


@dataclass(frozen=True)
class Line:
    """ln p ≈ weights[0] + weights[1] · ln p(bigrams) + weights[2] · ln p(base), the last where there is a base.

    Attributes:
        weights: Two or three numbers.
        fitted: The line's values where it was fitted, in ascending order, (N,).
        residuals: What was found there above them, (N,).
    """

    weights: tuple[float, ...]
    fitted: Tensor
    residuals: Tensor

    def at(self, features: Sequence[Tensor]) -> Tensor:
        """The line's value at each token; `features` are two (T,) tensors, bigrams and base, or the first alone."""
        value = torch.full_like(features[0], self.weights[0])
        for weight, feature in zip(self.weights[1:], features, strict=True):
            value = value + weight * feature
        return value

    def draw(self, features: Sequence[Tensor], random: Random) -> Tensor:
        """Its value and a residual from where it has a value nearby: so the results spread as what was found does."""
        value = self.at(features)
        count = len(self.residuals)
        drawn = []
        for place in torch.searchsorted(self.fitted, value.contiguous()).tolist():
            first = max(0, min(place - NEAR, count - 2 * NEAR))
            drawn.append(random.randrange(first, min(first + 2 * NEAR, count)))
        return (value + self.residuals[drawn]).clamp(min=LOWEST, max=0.0)


def fit_line(found: Tensor, features: Sequence[Tensor]) -> Line:
    """The least squares line through the log-probabilities `found`, (N,), on one or two features, (N,) each."""
    columns = torch.stack([torch.ones_like(found), *features], 1).double()
    weights = torch.linalg.lstsq(columns, found.double()[:, None]).solution.squeeze(1)
    value = columns @ weights
    order = value.argsort()
    residuals = found.double() - value
    return Line(tuple(weights.tolist()), value[order].float(), residuals[order].float())


def usual_line(with_base: bool) -> Line:
    """For data without owners that nobody saw: rounded from what was found on generated corpora (docs/dev/log.md)."""
    weights = USUAL_WITH_BASE if with_base else USUAL
    spread = torch.distributions.Normal(0.0, 2.0).icdf(torch.linspace(0.01, 0.99, 2 * NEAR))
    return Line(weights, torch.zeros(len(spread)), spread)
