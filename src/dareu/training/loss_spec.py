"""What the loss trainer has to know of a loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from dareu.config import Strict
from dareu.training import losses


@dataclass(frozen=True)
class LossSpec:
    """A loss, the tensors that it reads, and the data that training walks through.

    Attributes:
        loss: Pure function: the tensors named in `reads`, and the keys of `method.params` → a scalar.
        reads: Of `logps`, `mask`, `logits`, `labels`, `reference_logps`, `reference_logits`, all shifted; a reference
            model is loaded only where one of the last two is named. Each of the six with `other_` before it is that
            of a second response to the same prompts. What is not named is not computed.
        walks: The rows of an epoch.
        pairs: What the second response is: a refusal, or an alternate answer that the original model gave.
        trainer: A subclass of `LossTrainer`; None is `LossTrainer` itself.
        settings: Keys of `method.params` that the trainer reads; the others go to the loss.
        retains: Retain terms that go with the loss, `own` being one of its own; None: any but `own`.
        mean_over: What the loss is a mean over: answer tokens, rows, or the tokens of second responses. Micro-batches
            of an update are weighted by it, so that the update minimises the mean over all of them.
    """

    loss: Callable[..., Tensor]
    reads: tuple[str, ...] = ("logps", "mask")
    walks: Literal["forget", "retain", "both"] = "forget"
    pairs: Literal["refusal", "alternate"] | None = None
    trainer: type[Any] | None = None
    settings: type[Strict] | None = None
    retains: tuple[str, ...] | None = None
    mean_over: Literal["tokens", "rows", "other_tokens"] = "tokens"

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads the original model."""
        return any(name.removeprefix("other_").startswith("reference") for name in self.reads)


FINETUNE = LossSpec(losses.nll, walks="retain")  # learn the rows; what fine-tuning anywhere in a run is


def needs_reference(spec: LossSpec, retain: str, scrambled: int = 0) -> bool:
    """Whether the loss, retain term or `scrambled` rows of random words read the original; else it is not loaded."""
    return spec.needs_reference or retain in ("kl", "js", "own") or scrambled > 0
