"""What every stage of a run reads: plain data, complete and checked before the first stage is built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dareu.config import RunConfig
from dareu.data.corpus import Corpus, Split
from dareu.data.duplicates import Duplicate
from dareu.data.fictitious_names import Nameless
from dareu.data.sequential import RoundSplit
from dareu.runs.store import ArtifactStore
from dareu.workflow.console import Console
from dareu.workflow.tracking.tracker import Tracker


@dataclass(frozen=True)
class Context:
    """The data of a run. `prepare` makes it; nothing here does any work.

    Attributes:
        config: The whole configuration.
        corpus: As it is trained on: completions are cut into prompt and response.
        split: Forget, retain and test samples of the request (of the last one, where there are several).
        forgotten: Owners forgotten so far, those of this request included; a reward counts all of them.
        requests: The splits of sequential requests; empty for a single request.
        store: Where the artifacts of stages lie.
        console: Where stages report to.
        tracker: Where the curves of trainings go while a run works.
        base: What the base model is made of; empty where nothing is fine-tuned from it.
        imported: Content key of an original that was trained elsewhere, else None.
        answer_room: Tokens that the model's context leaves for an answer to the longest prompt; None: no limit.
        rendering: How a model's chat template renders a question and ends an answer; it may depend on a date.
        duplicates: Forget samples that also stand among those who stay.
        nameless: Forget samples without their owner's name; None where the method replaces no names.
        notes: What was said of the data before the run.
    """

    config: RunConfig
    corpus: Corpus
    split: Split
    forgotten: tuple[str, ...]
    requests: tuple[RoundSplit, ...]
    store: ArtifactStore
    console: Console
    tracker: Tracker
    base: dict[str, Any]
    imported: str | None
    answer_room: int | None
    rendering: dict[str, Any] | None
    duplicates: tuple[Duplicate, ...]
    nameless: Nameless | None
    notes: tuple[str, ...]

    def with_split(self, split: Split, forgotten: tuple[str, ...]) -> Context:
        """The same run as one of several requests sees it."""
        return replace(self, split=split, forgotten=forgotten, requests=())
