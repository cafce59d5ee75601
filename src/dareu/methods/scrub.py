"""SCRUB's trainer: max steps on forget rows alternate with min steps on retain rows, in the end min steps alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dareu.config import Optim
from dareu.data.render import Encoded
from dareu.methods import losses
from dareu.methods.procedures import divergence, scrub_length, scrub_place
from dareu.models.load import reference_logits
from dareu.models.logprobs import shift, token_logprobs
from dareu.training.loss_trainer import LossTrainer
from dareu.training.retain_sampler import RetainSampler


class AlternatingTrainer(LossTrainer):
    """A max step maximises KL(ref ‖ θ) on forget rows, a min step minimises α · KL(ref ‖ θ) + γ · NLL on retain rows.

    Which kind a step is, and which rows it sees, are functions of the number of steps alone: nothing has to be kept.
    The batches that the Trainer itself draws are not looked at, since an epoch has not always the same steps.
    """

    @staticmethod
    def length(optim: Optim, settings: Any, forget_steps: int, retain_steps: int) -> int | None:
        return scrub_length(optim.epochs, forget_steps, retain_steps, settings.max_epochs)

    def __init__(self, *, train_dataset: Sequence[tuple[int, Encoded]], args: Any, **kwargs: Any) -> None:
        super().__init__(train_dataset=train_dataset, args=args, **kwargs)
        assert self.retain_sampler is not None
        micro, slices = args.per_device_train_batch_size, args.gradient_accumulation_steps
        self.forget_sampler = RetainSampler([row for _, row in train_dataset], micro, args.seed)
        # Retain steps an epoch are counted in whole updates of all processes.
        self.forget_steps, self.retain_steps = (
            -(-len(sampler.rows) // (sampler.batch_size * slices * args.world_size))
            for sampler in (self.forget_sampler, self.retain_sampler)
        )

    def _terms(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        assert self.retain_sampler is not None
        slices = self.args.gradient_accumulation_steps
        within = self._micro_batch() % slices
        place = (self.forget_steps, self.retain_steps, self.settings.max_epochs)
        maximising, before = scrub_place(self.state.global_step, *place)
        sampler = self.forget_sampler if maximising else self.retain_sampler
        batch = self._batch_of(sampler, before * slices + within)
        if maximising:
            return {"forget_loss": (self.forget_weight, self.method.loss(**self._read(model, batch)))}
        return self._min_terms(model, batch)

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
