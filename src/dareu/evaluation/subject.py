"""The model that is evaluated, and how it is asked: greedy answers, samples, likelihoods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dareu.data.corpus import Sample, Task
from dareu.data.render import Encoded, encode, render_prompt
from dareu.errors import DataError
from dareu.models.generate import Generation, generate, sample
from dareu.models.logprobs import response_nll, rows_that_fit, vocabulary_of
from dareu.models.shared_prompts import shared_prompt_nll

UNLIMITED = 1 << 30


class Limit(NamedTuple):
    """Tokens of an answer: `wanted` = longest reference + 8, `room` = context after a prompt."""

    wanted: int
    room: int


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    Attributes:
        task: what a prompt is: a question, or the beginning of a text.
        batch_size: rows in one batch; it changes no figure.
        progress: labels the bars; None shows none.
    """

    model: Any
    tokenizer: Any
    task: Task = "qa"
    batch_size: int = 64
    progress: str | None = None

    @property
    def context(self) -> int:
        """Tokens that the model can read, by its config; practically no limit where it names none."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or UNLIMITED

    def bar(self, what: str) -> str | None:
        """The label of a bar."""
        return self.progress and f"{self.progress}: {what}"

    def rendered(self, prompts: Sequence[str]) -> list[str]:
        """The prompts as the model reads them."""
        return [render_prompt(self.tokenizer, prompt, self.task) for prompt in prompts]

    def pairs(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Encoded]:
        """Prompts, not rendered, and responses as tokens.

        Raises:
            DataError: A pair does not fit the context.
        """
        return [
            encode(self.tokenizer, prompt, response, self.task, self.context, of_model=True)
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def references(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Each sample's prompt and reference as tokens. Errors as `pairs`."""
        return self.pairs([s.prompt for s in samples], [s.response for s in samples])

    def limit(self, samples: Sequence[Sample]) -> Limit:
        """How long answers to `samples` may get. Errors as `pairs`."""
        rows = self.references(samples)
        longest = max((len(row.response_ids) for row in rows), default=1) - 1  # without end-of-text
        return Limit(longest + 8, self.context - max((len(row.prompt_ids) for row in rows), default=0))

    def room(self, prompts: Sequence[str], wanted: int) -> int:
        """Tokens that an answer may take: `wanted`, as far as the context goes after the longest rendered prompt.

        Raises:
            DataError: where a prompt leaves no room at all.
        """
        rows = (self.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts)
        longest = max(map(len, rows), default=0)
        if longest >= self.context:
            raise DataError(
                f"A prompt of {longest} tokens leaves no room in the model's context of {self.context}.",
                "Shorten the prompts, or leave this probe out.",
            )
        return min(wanted, self.context - longest)

    def answers(self, prompts: Sequence[str], tokens: int) -> list[Generation]:
        """Greedy answers to rendered prompts, of `tokens` tokens or so many as there is `room` for."""
        if not prompts:
            return []
        return self.greedy(prompts, self.room(prompts, tokens))

    def greedy(self, prompts: Sequence[str], tokens: int) -> list[Generation]:
        """Greedy answers to rendered prompts, of up to `tokens` tokens, for which there is room."""
        return generate(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=tokens,
            batch_size=self.batch_size,
            progress=self.bar("answers"),
        )

    def samples(
        self, queries: Sequence[Sample], count: int, temperature: float, seed: int
    ) -> list[list[Generation]]:
        """`count` samples of every query, in their order; see `dareu.models.generate.sample`."""
        if not queries:
            return []
        prompts = self.rendered([query.prompt for query in queries])
        tokens = self.room(prompts, self.limit(queries).wanted)
        return self.drawn(prompts, tokens, count, temperature, seed)

    def drawn(
        self, prompts: Sequence[str], tokens: int, count: int, temperature: float, seed: int
    ) -> list[list[Generation]]:
        """`count` samples of each rendered prompt, of up to `tokens` tokens, for which there is room."""
        return sample(
            self.model,
            self.tokenizer,
            prompts,
            count=count,
            temperature=temperature,
            max_new_tokens=tokens,
            batch_size=self.batch_size,
            seed=seed,
            progress=self.bar("samples"),
        )

    def nlls(self, pairs: Sequence[Encoded], include_eos: bool = True) -> list[tuple[float, int]]:
        """Summed negative log-likelihood (nats) of each response and its number of tokens, in the order given."""
        if not pairs:
            return []
        return response_nll(
            self.model,
            self.tokenizer,
            pairs,
            batch_size=self.batch_size,
            include_eos=include_eos,
            progress=self.bar("likelihoods"),
        )

    def nlls_of_shared(self, pairs: Sequence[Encoded]) -> list[tuple[float, int]]:
        """As `nlls`, where several responses answer one prompt, which is read once."""
        if not pairs:
            return []
        return shared_prompt_nll(
            self.model,
            self.tokenizer,
            pairs,
            batch_size=rows_that_fit(pairs, self.batch_size, vocabulary_of(self.model)),
            progress=self.bar("likelihoods"),
        )
