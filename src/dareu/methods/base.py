"""What a method is: it says whether a configuration fits it, what its result depends on, and how it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dareu.attribution.base import Attributor
from dareu.attribution.registry import Role
from dareu.config import RunConfig
from dareu.data.corpus import Corpus, Sample, Split, Task
from dareu.data.render import Encoded, encode_samples, render_prompt
from dareu.training.common import Work

if TYPE_CHECKING:
    from dareu.models.generate import Generation


@dataclass(frozen=True)
class MethodContext:
    """All that a method reads and writes. Plain data, and two callables for what only some methods need.

    Attributes:
        config: The whole run's configuration; `config.method` is the method's own.
        corpus: All samples and the task.
        split: The forget and retain samples of this request.
        forgotten: Owners forgotten so far, this request's included.
        policy: The original model, trainable; the method changes it in place.
        tokenizer: The policy's.
        work: Folder of checkpoints, training log, progress label.
        device: Name of the device that the policy lies on.
        response_limit: Tokens that an answer may take.
        attributor: Loads the attributor of a role. Only for a method whose `reads_attributor` is true.
        base: Opens the base model, which was fine-tuned into the original; None where it is not known.
        progress: A description → the label of a progress bar, or None where none is shown.
    """

    config: RunConfig
    corpus: Corpus
    split: Split
    forgotten: Sequence[str]
    policy: Any
    tokenizer: Any
    work: Work
    device: str
    response_limit: int
    attributor: Callable[[Role], Attributor]
    base: Callable[[], AbstractContextManager[Any]] | None = None
    progress: Callable[[str], str | None] = lambda label: None

    def encode(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Prompts and responses as the policy's tokens."""
        return encode_samples(self.tokenizer, samples, self.corpus.task, self.config.model.max_length)

    def answers(self, queries: Sequence[str], limit: int | None = None, **options: Any) -> list[Generation]:
        """What the policy answers to each question, in `limit` tokens at most (default: `response_limit`).

        `options`: those of `models.generate.generate`; greedily without one.
        """
        from dareu.models.generate import generate

        return generate(
            self.policy,
            self.tokenizer,
            [render_prompt(self.tokenizer, query, self.corpus.task) for query in queries],
            max_new_tokens=limit or self.response_limit,
            batch_size=self.config.evaluation.batch_size,
            **options,
        )


class Method(ABC):
    """One unlearning method. An instance holds no state of a run."""

    keep: ClassVar[tuple[str, ...]] = ()  # files of the work folder that belong to the result
    # The module that trains; imported before a stage's seconds are counted.
    engine: ClassVar[str | None] = None

    def validate(self, config: RunConfig, split: Split | None = None) -> None:  # noqa: B027  the schema may do
        """Check the configuration, and with `split` whether the data fit it too. Nothing is written.

        Raises:
            ConfigError, DataError, ModelError: For what would otherwise end the run after minutes of work.
        """

    def notes(self, config: RunConfig, split: Split) -> list[str]:
        """What a person should know before the run of how this method treats these data."""
        return []

    def rows(self, config: RunConfig, forget: Sequence[Sample], tokenizer: Any, task: Task) -> list[Encoded]:
        """Rows beyond the corpus that the model's context has to have room for.

        Raises:
            DataError: One of them is longer than `model.max_length` allows.
        """
        return []

    def key(self, config: RunConfig, stage_key: Callable[[str], str]) -> dict[str, Any]:
        """What the result depends on beside `config.method`, original model, request and seed.

        Args:
            stage_key: Name of a stage ("attributor") → its content key.
        """
        return {}

    def reads_attributor(self, config: RunConfig) -> bool:
        """Whether the attributor stage has to be built before `run`."""
        return False

    def stops_by_attributor(self, config: RunConfig) -> bool:
        """Whether `run` cannot do without the attributor that tells when to stop."""
        return self.reads_attributor(config)

    def reads_calibration(self, config: RunConfig) -> bool:
        """Whether `run` reads `split.calibration`."""
        return False

    def replaces_names(self, config: RunConfig) -> bool:
        """Whether fictitious names stand in place of the forget owners'."""
        return False

    def shares_weights(self) -> bool:
        """Whether its training works where each process holds a part of every weight (FSDP2, ZeRO-3)."""
        return False

    @abstractmethod
    def run(self, context: MethodContext) -> dict[str, Any]:
        """Unlearn `context.policy` in place; resume from the newest whole checkpoint in `context.work`.

        Returns:
            How it ended, for the manifest: `steps`, `stopped` (a reason or None), and what the method adds.

        Raises:
            TrainingError: Where a loss or a weight is not finite.
        """
