"""An encoder classifier: any sequence-classification model whose labels are the owners."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import Field

from dareu.attribution.base import WholeTextAttributor, owned_responses
from dareu.attribution.heldout import unseen_texts
from dareu.attribution.score import fit_temperature
from dareu.config.base import Count, Number, Positive, Strict, Text
from dareu.data.corpus import Sample
from dareu.errors import ModelError, first_line
from dareu.models.passes import by_length, evaluating
from dareu.runs.files import read_json

if TYPE_CHECKING:
    from dareu.attribution.registry import FitContext

STATE = "encoder.json"


class EncoderSettings(Strict):
    """What `fit_encoder` takes of `attributor.params`."""

    base: Text | None = None
    epochs: Count | None = None
    learning_rate: Positive | None = None
    batch_size: Count = 32
    holdout: Annotated[Number, Field(ge=0, lt=1)] = 0.1


class EncoderAttributor(WholeTextAttributor):
    """`AutoModelForSequenceClassification` over the owners; it reads whole responses, and prefixes one by one.

    `temperature` divides the logits. Of a long text the first `max_length` tokens are read. It has no background class.
    """

    kind = "encoder"
    takes = EncoderSettings

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        owners: Sequence[str],
        *,
        temperature: float = 1.0,
        max_length: int = 256,
        batch_size: int = 64,
    ) -> None:
        if model.config.num_labels != len(owners):
            raise ModelError(
                f"The classifier has {model.config.num_labels} labels for {len(owners)} owners.",
                "Give a model whose id2label names the owners of the data.",
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        self.model, self.tokenizer = model.eval(), tokenizer
        self.owners = list(owners)
        self.temperature, self.max_length, self.batch_size = temperature, max_length, batch_size

    @classmethod
    def fit(cls, context: FitContext) -> EncoderAttributor:
        """`fit_encoder` on a run's corpus; `attributor.params` are its keywords (`base`: a pretrained encoder)."""
        return fit_encoder(
            context.corpus.samples,
            tokenizer=context.tokenizer,
            seed=context.seed,
            device=context.device,
            **EncoderSettings(**context.config.params).model_dump(),
        )

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """The classifier's logits (B, C), float64; 0 for a blank text."""
        rows = np.zeros((len(texts), len(self.owners)))
        some = [i for i, text in enumerate(texts) if text.strip()]
        for chunk in by_length([len(texts[i]) for i in some], self.batch_size):
            numbers = [some[k] for k in chunk]
            with evaluating(self.model):
                logits = self.model(**self._encode([texts[i] for i in numbers])).logits
            rows[numbers] = logits.double().cpu().numpy()
        return rows

    def _encode(self, texts: Sequence[str]) -> dict[str, Any]:
        encoded = self.tokenizer(
            list(texts),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        return {name: values.to(self.model.device) for name, values in encoded.items()}

    def save(self, folder: Path) -> None:
        """The model and its tokenizer as `save_pretrained` writes them, `attributor.json` and `encoder.json`."""
        folder = Path(folder)
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        state = {"owners": self.owners, "temperature": self.temperature, "max_length": self.max_length}
        self.write_state(folder, STATE, state)

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> EncoderAttributor:
        """What `save` wrote, or any sequence-classification model: its `id2label` then names the owners."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        path = Path(folder)
        try:
            model = AutoModelForSequenceClassification.from_pretrained(str(folder), use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
        except Exception as error:  # whatever the libraries raise at what the folder holds
            raise ModelError(
                f"No sequence classifier could be loaded from {folder}: {first_line(error)}.",
                "Give a folder written by save_pretrained, with config.json, weights and tokenizer files.",
            ) from None
        model.to(device)
        state = read_json(path / STATE) if (path / STATE).is_file() else {}
        labels = [name for _, name in sorted(model.config.id2label.items())]
        settings = {key: state[key] for key in ("temperature", "max_length") if key in state}
        return cls(model, tokenizer, state.get("owners", labels), **settings)


def fit_encoder(
    samples: Sequence[Sample],
    *,
    base: str | None = None,
    tokenizer: Any = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int = 32,
    holdout: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
) -> EncoderAttributor:
    """A classifier of the owned responses: a fine-tuned encoder (folder or hub id `base`), or a new small BERT.

    The temperature is fitted on texts that were not learnt: paraphrased responses, or a share `holdout` of all.

    Args:
        tokenizer: of the small BERT; with `base` the base's own is used.
        epochs, learning_rate: 8 and 5e-5 for a base, 24 and 2e-3 from scratch, unless given.

    Raises:
        DataError: for fewer than two owners.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

    owned, owners = owned_responses(samples)
    names = {"id2label": dict(enumerate(owners)), "label2id": {owner: i for i, owner in enumerate(owners)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if base is None:
            shape = {
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 172,
            }
            config = BertConfig(
                vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape, **names
            )
            model = AutoModelForSequenceClassification.from_config(config)
        else:
            try:
                tokenizer = AutoTokenizer.from_pretrained(base)
                model = AutoModelForSequenceClassification.from_pretrained(
                    base, use_safetensors=True, ignore_mismatched_sizes=True, num_labels=len(owners), **names
                )
            except Exception as error:  # whatever the libraries raise at what the folder holds
                raise ModelError(
                    f"No encoder could be loaded from {base}: {first_line(error)}.",
                    "Set attributor.params.base to a folder written by save_pretrained.",
                ) from None
        attributor = EncoderAttributor(model.to(device), tokenizer, owners)
        learnt, held = unseen_texts(owned, holdout, seed)
        rate = 2e-3 if base is None else 5e-5
        rows = [(s.response, owners.index(str(s.owner))) for s in learnt]
        _train(attributor, rows, epochs or (24 if base is None else 8), learning_rate or rate, batch_size)
    if held:
        labels = np.array([owners.index(str(s.owner)) for s in held])
        attributor.temperature = fit_temperature(attributor.scores([s.response for s in held]), labels)
    return attributor


def _train(
    attributor: EncoderAttributor,
    rows: Sequence[tuple[str, int]],
    epochs: int,
    learning_rate: float,
    batch_size: int,
) -> None:
    model = attributor.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    for _ in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(order), batch_size):
            chunk = [rows[i] for i in order[start : start + batch_size]]
            labels = torch.tensor([label for _, label in chunk], device=model.device)
            loss = torch.nn.functional.cross_entropy(
                model(**attributor._encode([text for text, _ in chunk])).logits, labels
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
