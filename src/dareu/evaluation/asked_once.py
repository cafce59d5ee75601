"""A model whose weights stay as they are is asked once for what several figures of an evaluation read.

Only who knows that the weights are those of the evaluated model asks this way (`Known.of`). A probe that changes them,
or trains a copy, asks a plain `Subject`, which keeps nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from dareu.data.render import Encoded
from dareu.evaluation.subject import Subject
from dareu.models.generate import Generation


class Known:
    """What one model answered in one evaluation. Nothing of it is written to disk.

    Attributes:
        planned: samples of a prompt that are drawn at once at a temperature, because a later figure reads so many.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.planned: dict[float, int] = {}
        # Rendered prompt → the tokens that the answer could take, and the answer.
        self.answers: dict[str, tuple[int, Generation]] = {}
        self.samples: dict[tuple[Any, ...], list[Generation]] = {}
        self.nlls: dict[tuple[Any, ...], tuple[float, int]] = {}

    def of(self, subject: Subject) -> "AskedOnce":
        """The subject, which answers from what is known.

        Raises:
            ValueError: its model is not the one whose answers these are.
        """
        return AskedOnce(**{f.name: getattr(subject, f.name) for f in fields(Subject)}, known=self)


@dataclass(frozen=True)
class AskedOnce(Subject):
    """As `Subject`, for a model whose weights have not changed since it was asked first."""

    known: Known = field(default_factory=Known)

    def __post_init__(self) -> None:
        if self.known.model is None:
            self.known.model = self.model
        if self.known.model is not self.model:
            raise ValueError("what one model answered does not stand for another model")

    def greedy(self, prompts: Sequence[str], tokens: int) -> list[Generation]:
        known = self.known.answers
        new = [i for i, p in enumerate(prompts) if p not in known or not _reaches(*known[p], tokens)]
        answers = super().greedy([prompts[i] for i in new], tokens) if new else []
        fresh = dict(zip(new, answers, strict=True))
        known |= {prompts[i]: (tokens, answer) for i, answer in fresh.items()}
        return [fresh.get(i) or _first(self.tokenizer, known[p][1], tokens) for i, p in enumerate(prompts)]

    def drawn(
        self, prompts: Sequence[str], tokens: int, count: int, temperature: float, seed: int
    ) -> list[list[Generation]]:
        known = self.known.samples
        keys = [(p, tokens, temperature, seed) for p in prompts]
        new = [key for key in keys if len(known.get(key, ())) < count]
        if new:
            more = max(count, self.known.planned.get(temperature, 0))
            answers = super().drawn([key[0] for key in new], tokens, more, temperature, seed)
            known |= dict(zip(new, answers, strict=True))
        return [known[key][:count] for key in keys]

    def nlls(self, pairs: Sequence[Encoded], include_eos: bool = True) -> list[tuple[float, int]]:
        known = self.known.nlls
        keys = [(tuple(p.prompt_ids), tuple(p.response_ids), include_eos) for p in pairs]
        new = [(key, pair) for key, pair in zip(keys, pairs, strict=True) if key not in known]
        scored = super().nlls([pair for _, pair in new], include_eos)
        known |= {key: one for (key, _), one in zip(new, scored, strict=True)}
        return [known[key] for key in keys]


def _reaches(limit: int, answer: Generation, tokens: int) -> bool:
    """Whether an answer that could take `limit` tokens says what one of up to `tokens` tokens would be."""
    return answer.finished or limit >= tokens


def _first(tokenizer: Any, answer: Generation, tokens: int) -> Generation:
    """The answer as it is where it may take only `tokens` tokens, its end-of-text among them."""
    if len(answer.ids) + answer.finished <= tokens:
        return answer
    ids = answer.ids[:tokens]
    return Generation(tokenizer.decode(ids, skip_special_tokens=True).strip(), ids, False)
