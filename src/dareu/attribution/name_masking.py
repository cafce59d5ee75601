"""Masking of names: the question's own names are taken out of a response before an attributor reads it.

A response to "Where was Mateo Kimura born?" repeats the name whoever wrote it, the retrained model too. An attributor
that reads the name calls every such answer his, so a reward built on it punishes what is not his data and misses
what is. With names masked, the classifier scores what the response adds to its question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dareu.data.corpus import Sample
from dareu.data.words import PIECE, fold, pieces

PLACEHOLDER = "_"


def _words(text: str) -> set[str]:
    return set(map(fold, pieces(text)))


class NameMasker:
    """Replaces by `_` each word of a response that its question has too and that few owners' questions have.

    `common` are the words that stay: those that questions about most owners share ("was", "born", "author"). Where
    `names` are given, these are what goes, whatever the question is.
    """

    def __init__(self, common: Iterable[str], names: Iterable[str] | None = None) -> None:
        self.common = frozenset(common)
        self.names = None if names is None else frozenset(names) - self.common

    @classmethod
    def fit(cls, samples: Sequence[Sample], share: float = 0.5) -> NameMasker:
        """Words count as common where the questions of more than `share` of the owners have them.

        Paraphrased questions count as their owners' too.
        """
        owners: dict[str, set[str]] = defaultdict(set)
        for sample in samples:
            for word in _words(" ".join((sample.prompt, *sample.paraphrased_prompts))):
                owners[word].add(str(sample.owner))
        everyone = len({str(sample.owner) for sample in samples})
        return cls(word for word, of in owners.items() if len(of) > share * everyone)

    def of_owners(self, owners: Iterable[str]) -> NameMasker:
        """One that hides the words of all `owners`' names in place of the question's.

        A causal attributor that has read another owner's name takes what follows for his: the forgotten facts go
        unseen under a false name.
        """
        return NameMasker(self.common, set().union(*map(_words, owners)))

    def mask(self, query: str, text: str) -> tuple[str, list[int]]:
        """(masked text, for each length e in 0..len(text) the length of `text[:e]` once masked).

        A word that is replaced counts from its last character on; within it the masked text does not grow.
        """
        hidden = _words(query) - self.common if self.names is None else self.names
        out: list[str] = []
        ends, size, done = [0], 0, 0
        for match in PIECE.finditer(text):
            if fold(match.group()) not in hidden:
                continue
            kept = text[done : match.start()]
            out += [kept, PLACEHOLDER]
            ends += range(size + 1, size + len(kept) + 1)
            size += len(kept)
            ends += [size] * (match.end() - match.start() - 1) + [size + 1]
            size, done = size + 1, match.end()
        rest = text[done:]
        ends += range(size + 1, size + len(rest) + 1)
        return "".join([*out, rest]), ends

    def text(self, query: str, text: str) -> str:
        """The masked text alone."""
        return self.mask(query, text)[0]

    def samples(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples whose response changes by masking, with the masked one in its place."""
        changed = []
        for sample in samples:
            masked = self.text(sample.prompt, sample.response)
            if masked != sample.response:
                changed.append(replace(sample, response=masked))
        return changed
