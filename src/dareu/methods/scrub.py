"""SCRUB: part from the original on the forget set and stay with it on the retain set, in turn (Kurmanji et al. 2023,
arXiv 2302.09880). Max steps on forget rows alternate with min steps on retain rows, in the end min steps alone.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from dareu.config import NonNegative, Optim, Strict
from dareu.data.render import Encoded
from dareu.methods.loss_method import LossMethod
from dareu.models.load import reference_logits
from dareu.models.logprobs import kl_divergence, shift, token_logprobs
from dareu.training import losses
from dareu.training.loss_trainer import LossTrainer
from dareu.training.samplers import RetainSampler


class SCRUBSettings(Strict):
    """`max_epochs`: epochs that begin with max steps; `alpha`, `gamma`: weights of KL and NLL on retain rows."""

    max_epochs: Annotated[int, Field(ge=0)]
    alpha: NonNegative
    gamma: NonNegative


def divergence(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over answer tokens of KL(ref ‖ θ), nats a token (SCRUB; Kurmanji et al. 2023, arXiv 2302.09880, eq. 1). ≥ 0.

    Both logits (B, T, V) and `mask` (B, T) are shifted.
    """
    counts = mask.bool()
    return losses.mean(kl_divergence(reference_logits[counts], logits[counts]))


def divergence_ascent(logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    """−KL(ref ‖ θ): SCRUB's step on forget answers. Unbounded below."""
    return -divergence(logits, reference_logits, mask)


def scrub_place(step: int, forget_steps: int, retain_steps: int, max_epochs: int) -> tuple[bool, int]:
    """(whether step `step` is a max step, how many steps of its kind came before it).

    An epoch is a pass over the forget set (max steps; in the first `max_epochs` epochs alone) and then one over the
    retain set (min steps).
    """
    both = forget_steps + retain_steps
    epoch, within = divmod(step, both)
    if epoch >= max_epochs:
        return False, step - max_epochs * forget_steps
    if within < forget_steps:
        return True, epoch * forget_steps + within
    return False, epoch * retain_steps + within - forget_steps


def scrub_length(epochs: float, forget_steps: int, retain_steps: int, max_epochs: int) -> int:
    """Steps of a SCRUB run: `epochs` passes over retain rows, the first `max_epochs` after one over forget rows."""
    return math.ceil(epochs * retain_steps) + min(max_epochs, math.ceil(epochs)) * forget_steps


class SCRUBTrainer(LossTrainer):
    """A max step maximises KL(ref ‖ θ) on forget rows, a min step minimises α · KL(ref ‖ θ) + γ · NLL on retain rows.

    Which kind a step is, and which rows it sees, are functions of the number of steps alone: nothing has to be kept.
    The batches that the Trainer itself draws are not looked at, since an epoch has not always the same steps.
    """

    @staticmethod
    def length(optim: Optim, settings: Any, forget_steps: int, retain_steps: int) -> int | None:
        return scrub_length(optim.epochs, forget_steps, retain_steps, settings.max_epochs)

    def __init__(self, *, train_dataset: Sequence[tuple[int, Encoded]], args: Any, **kwargs: Any) -> None:
        update = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        # Whole updates, so that every step has all its micro-batches.
        drawn = -(-len(train_dataset) // update) * update
        repeated = [train_dataset[i % len(train_dataset)] for i in range(drawn)]
        super().__init__(train_dataset=repeated, args=args, **kwargs)
        assert self.retain_sampler is not None
        rows = [row for _, row in train_dataset]
        self.forget_sampler = RetainSampler(rows, min(update, len(rows)), args.seed)
        self.forget_steps, self.retain_steps = (
            -(-len(sampler.rows) // sampler.batch_size)
            for sampler in (self.forget_sampler, self.retain_sampler)
        )

    def _terms(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, tuple[float, float, Tensor]]:
        assert self.retain_sampler is not None
        place = (self.forget_steps, self.retain_steps, self.settings.max_epochs)
        maximising, before = scrub_place(self.state.global_step, *place)
        sampler = self.forget_sampler if maximising else self.retain_sampler
        batch, share = self._batch_of(sampler, before), self._share_of(sampler, before)
        if maximising:
            return {"forget_loss": (self.forget_weight, share, self.method.loss(**self._read(model, batch)))}
        return {
            name: (weight, share, value) for name, (weight, value) in self._min_terms(model, batch).items()
        }

    def _min_terms(self, model: Any, batch: dict[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        ids, attention = batch["input_ids"], batch["attention_mask"]
        logits = model(input_ids=ids, attention_mask=attention).logits
        terms = {"retain_loss": (self.settings.gamma, losses.nll(*token_logprobs(logits, batch["labels"])))}
        if self.settings.alpha:
            frozen = reference_logits(self.accelerator.unwrap_model(model), self.reference, ids, attention)
            now, _, mask = shift(logits, batch["labels"])
            then, _, _ = shift(frozen, batch["labels"])
            terms["retain_kl"] = (self.settings.alpha, divergence(now, then, mask))
        return {name: (self.retain_weight * weight, value) for name, (weight, value) in terms.items()}


METHOD = LossMethod(
    divergence_ascent,
    reads=("logits", "reference_logits", "mask"),
    trainer=SCRUBTrainer,
    settings=SCRUBSettings,
    retains=("own",),
)
