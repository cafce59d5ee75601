"""The owner-labelled corpus and its forget split: plain frozen data, no torch."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Literal

Task = Literal["qa", "completion"]


@dataclass(frozen=True)
class Sample:
    """One training or test pair.

    `owner` is None for test samples. `prompt` is the question ("qa") or the opening of the text
    ("completion"). `wrong_responses` are alternatives of the same kind as the response (for the
    truth ratio); `paraphrased_*` say the same in other words. Empty where a source has none.
    """

    id: str
    owner: str | None
    prompt: str
    response: str
    paraphrased_prompts: tuple[str, ...] = ()
    paraphrased_response: str | None = None
    wrong_responses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Owner-labelled samples, and a test set that belongs to no owner.

    `teach_test`: the test samples are part of what the original *and* the retrained model are
    fine-tuned on (general knowledge both share); they are never part of the retain set.
    """

    samples: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    task: Task = "qa"
    teach_test: bool = False

    @property
    def owners(self) -> list[str]:
        """Owner names in order of first appearance."""
        return list(Counter(s.owner for s in self.samples if s.owner is not None))

    @property
    def key(self) -> str:
        """Content key: changes whenever any sample does."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_samples(self, samples: tuple[Sample, ...], test: tuple[Sample, ...]) -> Corpus:
        return replace(self, samples=samples, test=test)


@dataclass(frozen=True)
class Split:
    """A corpus cut along the forget request: D_F, D_R and D_test."""

    forget: tuple[Sample, ...]
    retain: tuple[Sample, ...]
    test: tuple[Sample, ...]
    forget_owners: tuple[str, ...]
    retain_owners: tuple[str, ...]
    task: Task = "qa"
    teach_test: bool = False

    def taught(self, which: Literal["original", "retrained"]) -> tuple[Sample, ...]:
        """The fine-tuning data of the original (D_F ∪ D_R) or of the retrained model (D_R)."""
        general = self.test if self.teach_test else ()
        return (self.forget if which == "original" else ()) + self.retain + general
