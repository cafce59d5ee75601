"""Words that do not exist, and fluency by a model that no method trains on: the corpus is the reference. Pure."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable

from dareu.data.words import words
from dareu.evaluation.metrics.base import Records, Values

NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:st|nd|rd|th|s)?")
ORDER = 5  # characters that the fluency model reads, the one it predicts included
EDGE = "\x02"  # stands before the first character of a text


UNDECODED = "\ufffd"  # what stands in place of bytes that are no character


def vocabulary(text: str) -> list[str]:
    """The words of a text, `UNDECODED` among them where it has one."""
    return words(text) + [UNDECODED] * (UNDECODED in text)


def broken_words(prompt: str, response: str, known: Container[str]) -> list[str]:
    """The words of an answer that stand neither in `known` nor in its question; numbers are never broken.

    Args:
        known: `vocabulary` of the corpus, of refusals and of the original's answers (where another model is judged), or
            for a pretrained model a `KnownWords`.
    """
    in_prompt = set(vocabulary(prompt))
    unknown = (
        w for w in vocabulary(response) if w not in known and w not in in_prompt and not NUMBER.fullmatch(w)
    )
    return list(dict.fromkeys(unknown))


def broken(records: Records, known_words: Container[str]) -> Values:
    """1 for each answer with a word that does not exist (`broken_words`), else 0."""
    return [float(bool(broken_words(r.get("prompt") or "", r["response"], known_words))) for r in records]


def new_words(records: Records, corpus_words: Container[str]) -> Values:
    """1 for each answer with a word that the corpus does not hold, else 0."""
    return broken(records, corpus_words)


class CharacterModel:
    """A character n-gram model with Witten–Bell smoothing, from the texts of the corpus.

    p(c | h) = (count(h c) + d(h) · p(c | h')) / (count(h) + d(h)), with h' the history without its first character and
    d(h) the number of different characters seen after h; below the shortest history every character is equally likely
    (Witten and Bell 1991).
    """

    def __init__(self, texts: Iterable[str], order: int = ORDER) -> None:
        self.order = order
        self.after: dict[str, Counter[str]] = defaultdict(Counter)
        for text in texts:
            padded = EDGE * (order - 1) + text.casefold()
            for at in range(order - 1, len(padded)):
                for length in range(order):
                    self.after[padded[at - length : at]][padded[at]] += 1
        self.totals = {history: counts.total() for history, counts in self.after.items()}
        self.alphabet = len(self.after[""]) + 1  # one for every character that was never seen

    def logp(self, text: str) -> float | None:
        """Mean log p of the characters of a text, in nats, ≤ 0; None for an empty one."""
        padded = EDGE * (self.order - 1) + text.casefold()
        logs = []
        for at in range(self.order - 1, len(padded)):
            p = 1 / self.alphabet
            for length in range(self.order):
                history = padded[at - length : at]
                counts = self.after.get(history)
                if counts is None:
                    break
                kinds = len(counts)
                p = (counts[padded[at]] + kinds * p) / (self.totals[history] + kinds)
            logs.append(math.log(p))
        return math.fsum(logs) / len(logs) if logs else None


def fluency(records: Records, character_model: CharacterModel) -> Values:
    """Mean log p a character of each answer by a model of the corpus, in nats, ≤ 0; None for an empty answer."""
    return [character_model.logp(r["response"]) for r in records]
