"""Invisible watermarks: training texts carry their owner's code, and a model that learnt them writes it.

In the manner of WASA (Wang et al. 2023, arXiv 2310.00646): ten characters out of six that no reader sees. It needs a
model that was fine-tuned on watermarked texts (`watermarked`); the attributor itself learns nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dareu.attribution.base import WholeTextAttributor, uniform
from dareu.data.corpus import Sample
from dareu.data.words import words
from dareu.errors import ConfigError, DataError
from dareu.runs.files import read_json

if TYPE_CHECKING:
    from dareu.attribution.registry import FitContext

CHARACTERS = "\u200b\u200c\u200d\u2062\u2063\u2064"  # of no width, and joined to nothing
LENGTH = 10
SMOOTHING = 0.01  # of a code for every owner
_RUN = re.compile(f"[{CHARACTERS}]+")


def owner_codes(owners: Sequence[str]) -> dict[str, str]:
    """A code of ten invisible characters for each owner: a hash of the name, so that it does not depend on the others.

    Raises:
        DataError: where two owners have the same code (one in sixty million for a pair).
    """
    codes = {}
    for owner in owners:
        number = int.from_bytes(hashlib.sha256(owner.encode()).digest()[:8], "big")
        codes[owner] = "".join(CHARACTERS[number // 6**i % 6] for i in range(LENGTH))
    if len(set(codes.values())) < len(codes):
        raise DataError("Two owners have the same watermark.", "Rename one of them.")
    return codes


def without_watermark(text: str) -> str:
    """The text without any of the invisible characters."""
    return _RUN.sub("", text)


def watermarked(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples, each owned response with its owner's code after its rarest word (and so hardly ever at one place).

    Everything else stays; texts to compare with (paraphrased and wrong answers) get no code.
    """
    codes = owner_codes(list(dict.fromkeys(str(s.owner) for s in samples if s.owner is not None)))
    counts = Counter(word for s in samples for word in set(words(s.response)))
    marked = []
    for sample in samples:
        pieces = sample.response.split(" ")
        if sample.owner is None or not sample.response.strip():
            marked.append(sample)
            continue
        rarity = [min((counts[w] for w in words(piece)), default=len(samples) + 1) for piece in pieces]
        place = rarity.index(min(rarity))
        pieces[place] += codes[sample.owner]
        marked.append(replace(sample, response=" ".join(pieces)))
    return tuple(marked)


class WatermarkAttributor(WholeTextAttributor):
    """Reads codes: an owner's probability is the smoothed share of the codes in the text that are the owner's.

    A code with one character that is wrong or missing still counts where only one owner is so near. Uniform for a text
    without a code.
    """

    kind = "watermark"
    takes = ()

    def __init__(self, owners: Sequence[str]) -> None:
        self.owners = list(owners)
        self.codes = [owner_codes(self.owners)[owner] for owner in self.owners]

    @classmethod
    def fit(cls, context: FitContext) -> WatermarkAttributor:
        """`from_samples` of a run's corpus."""
        return cls.from_samples(context.corpus.samples)

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> WatermarkAttributor:
        """The owners of samples that `watermarked` has marked. Nothing is learnt.

        Raises:
            ConfigError: where no response carries a watermark.
        """
        if all(without_watermark(s.response) == s.response for s in samples):
            raise ConfigError(
                "The watermark attributor needs a model that was fine-tuned on watermarked texts; no response of this "
                "data carries a watermark.",
                "Mark the data before fine-tuning: dareu.attribution.watermark.watermarked(samples).",
            )
        return cls(list(dict.fromkeys(str(s.owner) for s in samples if s.owner is not None)))

    def votes(self, text: str) -> np.ndarray:
        """(C,): how often each owner's code stands in the text."""
        counts = np.zeros(len(self.owners))
        for run in _RUN.findall(text):
            for start in range(0, len(run), LENGTH):
                owner = self._nearest(run[start : start + LENGTH])
                if owner is not None:
                    counts[owner] += 1
        return counts

    def _nearest(self, written: str) -> int | None:
        wrong = [
            sum(a != b for a, b in zip(code, written, strict=False)) + LENGTH - len(written)
            for code in self.codes
        ]
        best = min(wrong, default=LENGTH)
        return wrong.index(best) if best <= 1 and wrong.count(best) == 1 else None

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(B, C), float64."""
        probs = uniform(len(texts), len(self.owners))
        for row, text in zip(probs, texts, strict=True):
            votes = self.votes(text)
            if votes.any():
                row[:] = (votes + SMOOTHING) / (votes + SMOOTHING).sum()
        return probs

    def save(self, folder: Path) -> None:
        """`attributor.json` (the kind) and `owners.json`."""
        self.write_state(folder, "owners.json", self.owners)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Any:
        """What `save` wrote."""
        return cls(read_json(folder / "owners.json"))
