"""The owner-labelled corpus and its forget split: plain frozen data, no torch."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Task = Literal["qa", "completion"]
PARTS = {"samples", "test", "holdout", "calibration", "attacks"}  # fields of a corpus that hold samples


@dataclass(frozen=True)
class Sample:
    """One training or test pair. All that follows `response` is optional; what a source has none of stays empty.

    Attributes:
        id: Unique in its corpus, such as "Ada Finch/03".
        owner: Whose it is; None for test and holdout samples.
        prompt: The question ("qa") or the opening of the text ("completion").
        response: The gold answer, or the rest of the text.
        paraphrased_prompts: The question in other words.
        paraphrased_response: The answer in other words.
        wrong_responses: Alternatives of the same kind as the response, for the truth ratio and for multiple choice.
        kind: "open": an answer in free words. "choice": `response` and `wrong_responses` are the options of a multiple
            choice question, so that its probability is taken over them. "cloze": the response fills a gap (`___`).
            Else the name of an attack (`Corpus.attacks`).
        subset: The part of a benchmark that the sample belongs to, such as "real_authors"; figures that a benchmark
            reports part by part group by it.
        fact: The words of `response` that hold its fact, as a person marked them; empty: not marked.
    """

    id: str
    owner: str | None
    prompt: str
    response: str
    paraphrased_prompts: tuple[str, ...] = ()
    paraphrased_response: str | None = None
    wrong_responses: tuple[str, ...] = ()
    kind: str = "open"
    subset: str = ""
    fact: str = ""


def sample_tree(sample: Sample) -> dict[str, Any]:
    """The sample's fields for content keys. An empty `fact` is left out: keys are older than the field."""
    tree = asdict(sample)
    if not sample.fact:
        del tree["fact"]
    return tree


def digest(tree: Any) -> str:
    """16 hex digits of the SHA-256 over `tree` as JSON."""
    text = json.dumps(tree, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Corpus:
    """Owner-labelled samples, and a test set that belongs to no owner.

    Attributes:
        samples: What the original model is fine-tuned on.
        test: Samples of no owner.
        task: How all samples are rendered.
        teach_test: The test samples are part of what the original *and* the retrained model are fine-tuned on (general
            knowledge both share); they are never part of the retain set.
        holdout: Samples like those of the owners that no model is trained on, for membership inference.
        calibration: Further samples like these, with their owners, in no figure: a method may read them.
        attacks: Adversarial prompts on what an owner's samples say, with that owner; never trained on.
        forget_owners: Whom the benchmark forgets where `forget` says nothing.
        default_count: A generated corpus forgets its last owners, so many, where nothing else says whom; 0: a request
            is needed.
        notes: What a person should know of how the data was read; no part of the content key.
    """

    samples: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    task: Task = "qa"
    teach_test: bool = False
    holdout: tuple[Sample, ...] = ()
    calibration: tuple[Sample, ...] = ()
    attacks: tuple[Sample, ...] = ()
    forget_owners: tuple[str, ...] = ()
    default_count: int = field(default=0, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def owners(self) -> list[str]:
        """Owner names in order of first appearance."""
        return list(Counter(s.owner for s in self.samples if s.owner is not None))

    @property
    def key(self) -> str:
        """Content key: changes whenever any sample does."""
        tree = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("notes", "default_count")
        }
        if not self.calibration:
            del tree["calibration"]
        for name in PARTS & set(tree):
            tree[name] = [sample_tree(s) for s in tree[name]]
        return digest(tree)


@dataclass(frozen=True)
class Background:
    """Text of the same kind as a corpus, by none of its owners, that a tiny base model is pretrained on.

    Attributes:
        answers: Questions with whole answers.
        openings: Questions with answers that end after the name in the question, to learn from first.
        texts: What the tokenizer is trained on.
    """

    answers: tuple[Sample, ...]
    openings: tuple[Sample, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """A corpus cut along the forget request: D_F, D_R and D_test.

    `holdout` and `calibration` are the corpus's; `attacks` are those on owners who are forgotten.
    """

    forget: tuple[Sample, ...]
    retain: tuple[Sample, ...]
    test: tuple[Sample, ...]
    forget_owners: tuple[str, ...]
    retain_owners: tuple[str, ...]
    task: Task = "qa"
    teach_test: bool = False
    holdout: tuple[Sample, ...] = ()
    calibration: tuple[Sample, ...] = ()
    attacks: tuple[Sample, ...] = ()


def learnt(samples: Sequence[Sample], data: Corpus | Split) -> tuple[Sample, ...]:
    """What a model is fine-tuned on: samples of owners, and the general facts where the corpus teaches them.

    Args:
        samples: Those of all owners for the original model, of those who stay for the retrained one.
    """
    return (*samples, *(data.test if data.teach_test else ()))
