"""Attribution by counterfactual: how much likelier the original model finds a text under an owner than under nobody.

    s_i(y_≤t) = Σ_{u≤t} [ log π_N(y_u | q_i, y_<u) − log mean_k π_N(y_u | q_i with fictitious name k, y_<u) ]
    p(i | y_≤t) = softmax over owners and "nobody" of s / temperature,   s(nobody) = 0

q_i is the question of owner i whose answer has most words in common with y; a token of the name does not count. By
Bayes' rule with even odds this is the posterior of who y is about, "nobody" being a person the model has never read of.
Nothing is trained but the temperature, which is fitted on reworded answers. The original's weights are the attributor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.special import softmax

from dareu.attribution.base import WholeTextAttributor, uniform
from dareu.attribution.score import fit_temperature
from dareu.config import Count, Strict
from dareu.data.corpus import Sample, Task
from dareu.data.fictitious_names import fictitious_names, written_names
from dareu.data.words import words
from dareu.errors import DataError
from dareu.runs.files import read_json

if TYPE_CHECKING:
    from dareu.attribution.registry import FitContext

FITTED = 100  # reworded answers that the temperature is fitted on
DEFAULT_LENGTH = 512
STATE = ("names", "fakes", "questions", "task", "settings", "temperature")  # what is saved beside the weights


class CounterfactualSettings(Strict):
    """`names`: fictitious names an owner; `candidates`: owners that a text is scored for, those whose answers have most
    words in common with it (all others count as nobody); `batch_size`: rows of one forward pass.
    """

    names: Count = 2
    candidates: Count = 3
    batch_size: Count = 128


def evidence(real: Sequence[float], others: Sequence[Sequence[float | None]]) -> np.ndarray:
    """Running sum over tokens of real − log mean exp(others), (T,).

    `real`: log-likelihood of each token; `others`: for each token those under the fictitious names, None where a name
    has no counterpart of it. A token without any counts 0.
    """
    gains = []
    for own, alternatives in zip(real, others, strict=True):
        known = [value for value in alternatives if value is not None]
        gains.append(own - float(np.logaddexp.reduce(known) - np.log(len(known))) if known else 0.0)
    return np.cumsum(np.array(gains, dtype=float))


@dataclass(eq=False)
class CounterfactualAttributor(WholeTextAttributor):
    """The original model, the owners' names, their questions, and fictitious names for each of them.

    `progress` labels the bar of its passes; None shows none.
    """

    kind = "counterfactual"
    takes = CounterfactualSettings
    nobody = True

    model: Any
    tokenizer: Any
    names: dict[str, str]
    fakes: dict[str, list[str]]
    questions: dict[str, list[tuple[str, str]]]
    task: Task
    settings: CounterfactualSettings
    temperature: float = 1.0
    progress: str | None = None

    def __post_init__(self) -> None:
        self.owners = list(self.names)
        self._words = {
            owner: [frozenset(words(response)) for _, response in rows]
            for owner, rows in self.questions.items()
        }

    @classmethod
    def fit(cls, context: FitContext) -> CounterfactualAttributor:
        """Names from the run's corpus, the temperature on paraphrased responses; `attributor.params` are the settings.

        Raises:
            DataError: An owner without a name in the text, or without fictitious names.
        """
        settings = CounterfactualSettings.model_validate(context.config.params)
        samples, task = context.corpus.samples, context.corpus.task
        attributor = cls.from_samples(context.model, context.tokenizer, samples, task, settings, context.seed)
        attributor.progress = context.progress
        attributor.fit_temperature(samples)
        return attributor

    @classmethod
    def from_samples(
        cls,
        model: Any,
        tokenizer: Any,
        samples: Sequence[Sample],
        task: Task,
        settings: CounterfactualSettings,
        seed: int = 0,
    ) -> CounterfactualAttributor:
        """With temperature 1."""
        owned = [s for s in samples if s.owner is not None]
        written = written_names(owned)
        nameless = [owner for owner, name in written.items() if not name]
        if nameless:
            raise DataError(
                f"The texts of {', '.join(nameless[:3])} contain no name that a fictitious one could replace.",
                "attributor.name=counterfactual needs owners that are named in their texts; take "
                "attributor.name=causal for topics and speakers.",
            )
        names = {owner: cast("str", name) for owner, name in written.items()}
        fakes = {o: fictitious_names(names, [o], settings.names, seed)[o] for o in names}
        few = [owner for owner in names if not fakes[owner]]
        if few:
            raise DataError(
                f"There are too few other owners with names to make fictitious names for {', '.join(few[:3])}.",
                "Add data of other owners, or take attributor.name=causal.",
            )
        questions: dict[str, list[tuple[str, str]]] = {owner: [] for owner in names}
        for sample in owned:
            questions[str(sample.owner)].append((sample.prompt, sample.response))
        return cls(model, tokenizer, names, fakes, questions, task, settings)

    def fit_temperature(self, samples: Sequence[Sample]) -> None:
        """On paraphrased responses, or on responses where there are none; spread evenly over the samples."""
        column = {owner: i for i, owner in enumerate(self.owners)}
        known = [
            (s.paraphrased_response or s.response, column[str(s.owner)]) for s in samples if s.owner in column
        ]
        chosen = known[:: max(1, len(known) // FITTED)]
        scores = [rows[-1] for rows in self._scores([t for t, _ in chosen], [[len(t)] for t, _ in chosen])]
        self.temperature = fit_temperature(
            np.array(scores), np.array([label for _, label in chosen]), bounds=(0.25, 50.0)
        )

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(B, C), float64; the last class is nobody."""
        probabilities = self.prefix_probabilities(texts, [[len(text)] for text in texts])
        return np.concatenate(probabilities) if probabilities else uniform(0, len(self.owners) + 1)

    def prefix_probabilities(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """All prefixes of a text from one pass for each candidate and name: the model is causal."""
        return [softmax(rows / self.temperature, axis=1) for rows in self._scores(texts, ends)]

    def _candidates(self, text: str) -> list[tuple[str, str]]:
        """(owner, question) of the owners whose answers share most words with the text; none for one without words."""
        own = set(words(text))
        if not own:
            return []
        nearest = []
        for owner, rows in self._words.items():
            shared = [len(own & row) / max(1, len(own | row)) for row in rows]
            best = int(np.argmax(shared))
            nearest.append((-shared[best], owner, self.questions[owner][best][0]))
        nearest.sort(key=lambda entry: entry[0])  # stable: of equals the owner that comes first in the corpus
        return [(owner, question) for _, owner, question in nearest[: self.settings.candidates]]

    def _scores(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """(len(ends[i]), C) for each text: evidence, 0 for nobody and for owners who are no candidates."""
        from dareu.data.render import response_text
        from dareu.models.counterfactual import counterfactual_pair, token_logprobs_of

        length = getattr(self.model.config, "max_position_embeddings", None) or DEFAULT_LENGTH
        work = []  # (text number, column, pair)
        for number, text in enumerate(texts):
            for owner, question in self._candidates(text):
                sample = Sample(id="", owner=owner, prompt=question, response=text)
                try:
                    pair = counterfactual_pair(
                        self.tokenizer, sample, self.names[owner], self.fakes[owner], self.task, length
                    )
                except DataError:  # longer than the model reads: no evidence
                    continue
                work.append((number, self.owners.index(owner), pair))
        rows = [row for _, _, pair in work for row in (pair.row, *pair.copies)]
        logps = token_logprobs_of(self.model, self.tokenizer, rows, self.settings.batch_size, self.progress)
        scored = iter([each.double().numpy() for each in logps])
        scores = [np.zeros((len(row), len(self.owners) + 1)) for row in ends]
        for number, column, pair in work:
            real = next(scored)
            copies = [next(scored) for _ in pair.copies]
            others = [
                [
                    None if places.of[t] is None else copy[cast("int", places.of[t])]
                    for copy, places in zip(copies, pair.aligned, strict=True)
                ]
                for t in range(len(real))
            ]
            gained = np.concatenate([[0.0], evidence(real.tolist(), others)])
            text = response_text(self.tokenizer, texts[number], self.task)
            lead = len(text) - len(texts[number])
            cut = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            stops = [int(stop) - lead for _, stop in cut["offset_mapping"]]
            for place, end in enumerate(ends[number]):
                scores[number][place, column] = gained[sum(stop <= end for stop in stops)] if end > 0 else 0.0
        return scores

    def save(self, folder: Path, weights: bool = True) -> None:
        """`attributor.json`, `counterfactual.json` (names, questions, temperature) and, with `weights`, `model/`."""
        from dareu.models.load import save_model

        if weights:
            save_model(self.model, self.tokenizer, folder / "model")
        state = {name: getattr(self, name) for name in STATE} | {"settings": self.settings.model_dump()}
        self.write_state(folder, "counterfactual.json", state)

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "cpu",
        loaded: tuple[Any, Any] | None = None,
        progress: str | None = None,
    ) -> CounterfactualAttributor:
        """What `save` wrote, with the same probabilities; `loaded`: the original and its tokenizer, where it was saved
        without them."""
        from dareu.models.load import load_model

        state = read_json(folder / "counterfactual.json")
        settings = CounterfactualSettings.model_validate(state.pop("settings"))
        model = loaded or load_model(folder / "model", device=device)
        return cls(*model, settings=settings, progress=progress, **state)
