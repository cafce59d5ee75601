"""The causal classifier: a head at every position of a causal backbone, one forward pass for every prefix.

DareU calls its classifier on k prefixes of a response. A causal model trained with the label at every
position gives all of them at once (METHOD: phase 1).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification, AutoTokenizer

from dareu.attribution.base import class_count, uniform
from dareu.data.render import end_token
from dareu.errors import ModelError
from dareu.models.cpu_matmul import with_fast_products
from dareu.models.passes import padded
from dareu.runs.files import read_json, write_json


class CausalAttributor:
    """A token classifier over a causal backbone. It reads the response alone: no query, no special tokens.

    `end_of_text`: it was trained with the end-of-text token after each response, and scores that position
    too. `temperature` divides the logits. Of a text longer than `max_length` tokens the first `max_length`
    are read, and later positions keep the last score. `batch_size` bounds the texts in one forward pass of
    the text path.
    """

    kind: ClassVar[str] = "causal"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        owners: Sequence[str],
        *,
        nobody: bool = False,
        end_of_text: bool = False,
        temperature: float = 1.0,
        max_length: int = 256,
        batch_size: int = 64,
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"{type(tokenizer).__name__} gives no character offsets, which the attributor needs.",
                "Use a model that has a fast tokenizer (tokenizer.json).",
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.owners = list(owners)
        self.nobody = nobody
        self.end_of_text = end_of_text
        self.temperature = temperature
        self.max_length = max_length
        self.batch_size = batch_size

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(B, C): the scores at the last token of each text; uniform for a text without tokens."""
        ends = [[len(text)] for text in texts]
        rows = self.prefix_probabilities(texts, ends)
        return np.concatenate(rows) if rows else uniform(0, class_count(self))

    def prefix_probabilities(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Scores of the last token that ends at or before e, for each e in `ends[i]`: (len(ends[i]), C).

        One forward pass for up to `batch_size` texts, whatever the number of offsets. Equal to scoring
        `texts[i][:e]` by itself wherever no token spans e; uniform where no token ends by then.
        """
        tokens, token_stops = self._tokenise(texts)
        logits = self._forward(tokens)
        rows = []
        for scores, stops, wanted in zip(logits, token_stops, ends, strict=True):
            probs = torch.softmax(scores.double() / self.temperature, dim=-1).numpy()
            table = np.concatenate([uniform(1, class_count(self)), probs])
            offsets = np.asarray(wanted, dtype=int)
            index = np.where(offsets > 0, np.searchsorted(stops, offsets, side="right"), 0)
            rows.append(table[index])
        return rows

    @torch.no_grad()
    def prefix_probabilities_ids(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Scores at every position of responses in the classifier's own tokens, in one forward pass.

        `ids` (B, T), `mask` (B, T) 1 on response tokens, padded on the right. Returns (B, T, C) float32 on
        the device of `ids`: position t holds the scores given tokens ..t. Pads, tokens beyond `max_length`,
        ids that no token has (a policy's padded vocabulary) and, for a classifier that does not know it, the
        end-of-text token keep the score before them; uniform before the first token.

        Raises:
            ValueError: The padding is another.
        """
        real = mask.bool()
        if bool((real[:, 1:] & ~real[:, :-1]).any()):
            raise ValueError("mask must be padded on the right: ones first, then zeros")
        read = real.clone()
        read[:, self.max_length :] = False
        end = end_token(self.tokenizer)
        if end != self.tokenizer.eos_token_id and self.tokenizer.eos_token_id is not None:
            ids = ids.where(ids != end, self.tokenizer.eos_token_id)  # a turn's end is the end of the text
        known = ids < len(self.tokenizer)
        read &= known
        ids = ids.where(known, 0)  # the embedding has no row for them
        if not self.end_of_text and self.tokenizer.eos_token_id is not None:
            read &= ids != self.tokenizer.eos_token_id
        position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        last = torch.where(read, position, -1).cummax(dim=1).values.unsqueeze(-1)  # (B, T, 1)
        attention = real.long()[:, : self.max_length]
        attention[:, 0] = 1  # a row without tokens must not be wholly masked; its scores are not used
        logits = self._logits(ids[:, : self.max_length], attention).to(ids.device)
        probs = torch.softmax(logits / self.temperature, dim=-1)
        classes = probs.shape[-1]
        held = probs.gather(1, last.clamp(min=0).expand(-1, -1, classes))
        return torch.where(last >= 0, held, torch.full_like(held, 1.0 / classes))

    def position_logits(self, texts: Sequence[str]) -> list[Tensor]:
        """Logits at every token of each text, before the temperature: B tensors (L_i, C), on the CPU."""
        return self._forward(self._tokenise(texts)[0])

    def shares_tokenizer(self, tokenizer: Any) -> bool:
        """Whether `tokenizer` cuts text into the same ids, so that the ids of a policy can be scored."""
        own = self.tokenizer
        if not tokenizer.is_fast or own.eos_token_id != tokenizer.eos_token_id:
            return False
        return bool(own.get_vocab() == tokenizer.get_vocab() and _cutting(own) == _cutting(tokenizer))

    def save(self, folder: Path) -> None:
        """Weights (safetensors), tokenizer and `attributor.json`."""
        folder = Path(folder)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        names = ("kind", "owners", "nobody", "end_of_text", "temperature", "max_length")
        write_json(folder / "attributor.json", {name: getattr(self, name) for name in names})

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", trust_remote_code: bool = False) -> CausalAttributor:
        """What `save` wrote, in float32 and in evaluation mode."""
        state = read_json(Path(folder) / "attributor.json")
        kind, owners = state.pop("kind"), state.pop("owners")
        if kind != cls.kind:
            raise ModelError(f"{folder} holds an attributor of the kind '{kind}', not '{cls.kind}'.")
        model = AutoModelForTokenClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        return cls(with_fast_products(model).to(device), tokenizer, owners, **state)

    def _tokenise(self, texts: Sequence[str]) -> tuple[list[list[int]], list[np.ndarray]]:
        """Ids of each text and, for each id, the character offset where it ends (never decreasing)."""
        if not len(texts):
            return [], []
        batch = self.tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        tokens = [list(ids[: self.max_length]) for ids in batch["input_ids"]]
        spans = [row[: self.max_length] for row in batch["offset_mapping"]]
        stops = [np.maximum.accumulate(np.array([stop for _, stop in row], dtype=int)) for row in spans]
        return tokens, stops

    @torch.no_grad()
    def _forward(self, tokens: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits (L_i, C) of each row; rows of like length share a batch, so that little is spent on pads."""
        out = [torch.zeros(0, class_count(self))] * len(tokens)
        order = sorted((i for i, row in enumerate(tokens) if row), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            ids, attention = padded([tokens[i] for i in chosen])
            logits = self._logits(ids, attention).cpu()
            for row, i in zip(logits, chosen, strict=True):
                out[i] = row[: len(tokens[i])]
        return out

    def _logits(self, ids: Tensor, attention: Tensor) -> Tensor:
        """(B, T) → (B, T, C) float32; the one place where the model is called."""
        self.model.eval()
        result = self.model(
            input_ids=ids.to(self.device), attention_mask=attention.to(self.device), use_cache=False
        )
        logits: Tensor = result.logits.float()
        return logits


def _cutting(tokenizer: Any) -> dict[str, Any]:
    """What decides how a fast tokenizer cuts text (not what it adds around it, nor how it pads)."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return {part: state[part] for part in ("normalizer", "pre_tokenizer", "model")}
