"""One Hugging Face Trainer that takes a loss: fine-tuning and every loss-based method."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from dareu.config import Optim, UnlearningOptim
from dareu.data.render import Encoded
from dareu.models.load import as_original, reference_logits
from dareu.models.logprobs import (
    IGNORE,
    kl_divergence,
    response_logits,
    response_logprobs,
    shift,
    to_batch,
    token_logprobs,
)
from dareu.models.processes import connect
from dareu.models.seeds import SeededSteps
from dareu.runs.ranks import world_size
from dareu.training import losses
from dareu.training.common import (
    Bookkeeping,
    Work,
    non_finite,
    run_trainer,
    trainer_arguments,
)
from dareu.training.kept_logits import KeptLogits, fit_in_memory
from dareu.training.loss_spec import LossSpec, read_settings
from dareu.training.losses import SoftTargets, js_divergence
from dareu.training.mixins import WholeAdapters
from dareu.training.muon import MuonWithAdamW
from dareu.training.samplers import ByLength, PairSampler, RetainSampler, scrambled, token_share

DIVERGENCE = {"kl": kl_divergence, "js": js_divergence}  # from the reference, as a retain term


class LossTrainer(WholeAdapters, SeededSteps, Trainer):
    """Minimises forget_weight · forget loss + retain_weight · retain loss.

    The forget rows are walked through epoch by epoch; beside each of their batches stands a batch of retain rows, and
    one of other responses to the same prompts where the loss reads them. An item of the data is (number, row).
    What the trainers of single methods change are its terms and its length; `settings` are their own keys.
    """

    @staticmethod
    def length(optim: Optim, settings: Any, forget_steps: int, retain_steps: int) -> int | None:
        """Optimizer steps of a run where `optim.steps` names none; None: `optim.epochs` passes over the forget rows.

        `forget_steps` and `retain_steps` are those of one pass over the rows.
        """
        return None

    def __init__(
        self,
        *,
        method: LossSpec,
        params: dict[str, Any],
        settings: Any,
        forget_weight: float,
        retain: str,
        retain_weight: float,
        retain_sampler: RetainSampler[Encoded] | None,
        pair_sampler: PairSampler | None,
        reference: Any,
        tokenizer: Any,
        targets: Sequence[SoftTargets] = (),
        by_length: bool = False,
        scrambled_sampler: RetainSampler[Encoded] | None = None,
        scrambled_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        pad = tokenizer.pad_token_id

        def collate(items: Sequence[tuple[int, Encoded]]) -> dict[str, Tensor]:
            number = torch.tensor([n for n, _ in items])
            return {**to_batch([row for _, row in items], pad, "cpu"), "number": number}

        super().__init__(data_collator=collate, **kwargs)
        self.method, self.params, self.settings, self.tokenizer = method, params, settings, tokenizer
        self.forget_weight, self.retain, self.retain_weight = forget_weight, retain, retain_weight
        self.retain_sampler, self.pair_sampler, self.reference = retain_sampler, pair_sampler, reference
        # Our losses are means: the Trainer divides by accumulation steps.
        self.model_accepts_loss_kwargs = False
        self.targets, self.by_length = targets, by_length
        self.scrambled_sampler, self.scrambled_weight = scrambled_sampler, scrambled_weight
        self._kept: dict[RetainSampler[Encoded], KeptLogits] = {}
        self._shares = [1.0]  # of the update's micro-batches, see `_terms`
        self.micro = 0
        self._sums: dict[str, tuple[float, int]] = {}  # since the last log: sum and number of micro-batches

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.by_length:
            return super()._get_train_sampler(train_dataset)
        rows: Any = self.train_dataset
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return ByLength([len(row) for _, row in rows], batch, self.args.seed)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Tensor]], Any]:
        """The micro-batches of the next update."""
        micro_batches, items = super().get_batch_samples(*args, **kwargs)
        batches, counts = [], []
        for micro, batch in enumerate(micro_batches):
            rows = self._own_rows(micro)
            batches.append({name: value[: max(rows, 1)] for name, value in batch.items()})
            counts.append(self._count(batches[-1]) if rows else 0.0)
        own = torch.tensor(counts, dtype=torch.float32, device=self.args.device)
        total = self.accelerator.reduce(own.sum(), reduction="sum").clamp(min=1)
        self._shares = (self.args.world_size * len(counts) * own / total).tolist()
        return batches, items

    def _own_rows(self, micro: int) -> int:
        """Rows of micro-batch `micro` of the update that are its own: at an epoch's end accelerate repeats rows, so
        that all processes have equal numbers of micro-batches."""
        world, size = self.args.world_size, self.args.per_device_train_batch_size
        if world == 1:
            return size
        count, slices = len(self.train_dataset), self.args.gradient_accumulation_steps  # type: ignore[arg-type]
        update = self.state.global_step % -(-count // (size * slices * world))
        first = ((update * slices + micro) * world + self.args.process_index) * size
        return min(size, max(0, count - first))

    def _count(self, batch: dict[str, Tensor]) -> float:
        """What the loss of a micro-batch is a mean over."""
        if self.method.mean_over == "rows":
            return len(batch["number"])
        if self.method.mean_over == "other_tokens":
            return sum(len(row.response_ids) for row in self._others(batch))
        return int((batch["labels"] != IGNORE).sum())

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        terms = self._terms(model, inputs)
        total = torch.stack([weight * share * value for weight, share, value in terms.values()]).sum()
        if not torch.isfinite(total.detach()):
            raise non_finite(self.state.global_step)
        for name, (_, share, value) in terms.items():
            found, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (found + share * float(value.detach()), count + 1)
        return total

    def _terms(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, tuple[float, float, Tensor]]:
        """What is summed: name in the log → (weight, share, loss of this micro-batch).

        Shares are those that micro-batches have in the update, times the number of micro-batches of all processes, by
        which the Trainer divides.
        """
        forget = self.method.loss(**self._read(model, inputs), **self.params)
        terms = {"forget_loss": (self.forget_weight, self._shares[self.micro], forget)}
        if self.retain != "none" and self.retain_sampler is not None:
            share = self._share_of(self.retain_sampler, self._micro_batch())
            terms["retain_loss"] = (self.retain_weight, share, self._retain_term(model))
        if self.scrambled_sampler is not None:
            share = self._share_of(self.scrambled_sampler, self._micro_batch())
            terms["scrambled_loss"] = (
                self.scrambled_weight,
                share,
                self._divergence(model, self.scrambled_sampler),
            )
        return terms

    def _share_of(self, sampler: RetainSampler[Encoded], index: int) -> float:
        """The share of batch `index` of a walk, of which each micro-batch of the update takes the next."""
        world, slices, first = self.args.world_size, len(self._shares), index - self.micro
        place = (self.args.process_index, world)
        return world * slices * token_share(sampler, index, range(first, first + slices), *place)

    def _read(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the loss names, and no others."""
        reads = self.method.reads
        if "target_ids" in reads:
            tensors = self._with_targets(model, inputs)
            return {name: tensors[name] for name in reads}
        tensors = self._tensors(model, inputs, {name for name in reads if not name.startswith("other_")})
        others = {name.removeprefix("other_") for name in reads if name.startswith("other_")}
        if others:
            batch = to_batch(self._others(inputs), self.tokenizer.pad_token_id, self.args.device)
            tensors |= {f"other_{name}": value for name, value in self._tensors(model, batch, others).items()}
        return {name: tensors[name] for name in reads}

    def _others(self, inputs: dict[str, Tensor]) -> list[Encoded]:
        """The second responses to the rows of a micro-batch."""
        assert self.pair_sampler is not None
        return self.pair_sampler.batch(inputs["number"].tolist(), int(self.state.epoch or 0))

    def _with_targets(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits (N, V) at the N answer tokens of the batch, these tokens, their soft targets and levels."""
        logits, gold, _ = response_logits(model, inputs)
        rows = [self.targets[n] for n in inputs["number"].tolist()]
        return {
            "answer_logits": logits,
            "answer_ids": gold,
            "target_ids": torch.cat([row.ids for row in rows]).to(logits.device),
            "target_probs": torch.cat([row.probs for row in rows]).to(logits.device),
            "levels": torch.cat([row.levels for row in rows]).to(logits.device),
        }

    def _tensors(self, model: Any, batch: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
        """Those of a batch, shifted; no pass through the model where nothing is wanted."""
        if not wanted:
            return {}
        if wanted <= {"logps", "mask", "reference_logps"}:
            return self._log_probabilities(model, batch, wanted)
        ids, attention, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        logits = model(input_ids=ids, attention_mask=attention).logits
        tensors: dict[str, Tensor] = {}
        tensors["logits"], tensors["labels"], tensors["mask"] = shift(logits, labels)
        if "logps" in wanted:
            tensors["logps"], _ = token_logprobs(logits, labels)
        if wanted & {"reference_logps", "reference_logits"}:
            frozen = reference_logits(self.accelerator.unwrap_model(model), self.reference, ids, attention)
            tensors["reference_logits"], _, _ = shift(frozen, labels)
            if "reference_logps" in wanted:
                tensors["reference_logps"], _ = token_logprobs(frozen, labels)
        return {name: tensors[name] for name in wanted}

    def _micro_batch(self) -> int:
        """This micro-batch's number, counted through the whole run; an epoch's last step may have fewer of them."""
        return self.state.global_step * self.args.gradient_accumulation_steps + self.micro

    def _rows_of(self, sampler: RetainSampler[Encoded], index: int) -> list[Encoded]:
        """Batch `index` of a walk, this process's part of it."""
        return sampler.batch(index, self.args.process_index, self.args.world_size)

    def _batch_of(self, sampler: RetainSampler[Encoded], index: int) -> dict[str, Tensor]:
        return to_batch(self._rows_of(sampler, index), self.tokenizer.pad_token_id, self.args.device)

    def _log_probabilities(self, model: Any, batch: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
        """For losses that read no whole distribution: prompts and pads never pass through the head."""
        tensors: dict[str, Tensor] = {}
        tensors["logps"], tensors["mask"] = response_logprobs(model, batch)
        if "reference_logps" in wanted:
            with as_original(self.accelerator.unwrap_model(model), self.reference) as original:
                tensors["reference_logps"], _ = response_logprobs(original, batch)
        return {name: tensors[name] for name in wanted}

    def _retain_term(self, model: Any) -> Tensor:
        assert self.retain_sampler is not None
        if self.retain == "nll":
            return losses.nll(
                *response_logprobs(model, self._batch_of(self.retain_sampler, self._micro_batch()))
            )
        return self._divergence(model, self.retain_sampler)

    def _divergence(self, model: Any, sampler: RetainSampler[Encoded]) -> Tensor:
        """From the original, on this micro-batch's rows of `sampler`."""
        rows = self._rows_of(sampler, self._micro_batch())
        batch = to_batch(rows, self.tokenizer.pad_token_id, self.args.device)
        now, _, _ = response_logits(model, batch)
        return losses.mean(DIVERGENCE[self.retain](self._originally(model, sampler, rows, batch), now))

    def _originally(
        self, model: Any, sampler: RetainSampler[Encoded], rows: Sequence[Encoded], batch: dict[str, Tensor]
    ) -> Tensor:
        """The original's logits (N, V) at a batch of rows of `sampler`."""
        if sampler not in self._kept:
            with as_original(self.accelerator.unwrap_model(model), self.reference) as original:
                if not self._comes_back(sampler, original.config.vocab_size):
                    return response_logits(original, batch)[0]
                pad = self.tokenizer.pad_token_id
                self._kept[sampler] = KeptLogits(original, sampler.rows, pad, sampler.batch_size)
        return self._kept[sampler].at(rows)

    def _comes_back(self, sampler: RetainSampler[Encoded], vocabulary: int) -> bool:
        """Whether the run sees its rows twice, and what the original says of them all can be kept."""
        slices = self.args.gradient_accumulation_steps * self.args.world_size
        seen = self.state.max_steps * slices * sampler.batch_size
        return seen > len(sampler.rows) and fit_in_memory(sampler.rows, vocabulary)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._sums and "loss" in logs:
            totals = torch.tensor(list(self._sums.values()), device=self.args.device)
            sums, counts = self.accelerator.reduce(totals, reduction="sum").T.tolist()
            logs.update({name: s / n for name, s, n in zip(self._sums, sums, counts, strict=True)})
            self._sums = {}
        super().log(logs, start_time)


def train_with_loss(
    model: Any,
    tokenizer: Any,
    *,
    method: LossSpec,
    optim: Optim,
    rows: Sequence[Encoded],
    retain_rows: Sequence[Encoded] = (),
    retain: str = "none",
    retain_batch_size: int | None = None,
    params: dict[str, Any] | None = None,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    reference: Any = None,
    others: Sequence[Sequence[Encoded]] = (),
    targets: Sequence[SoftTargets] = (),
    seed: int = 0,
    device: str = "cpu",
    work: Work,
    callbacks: Sequence[Any] = (),
    by_length: bool = False,
    scrambled_batch_size: int = 0,
    scrambled_weight: float = 1.0,
) -> None:
    """Train `model` in place; resume from the newest whole checkpoint in `work`. `TrainingError` on a bad loss.

    `rows` is what the method walks through: the forget set, or for fine-tuning the set to learn. `others` are, for each
    of them, the responses that a method with `pairs` sets beside it; `targets` the soft targets of a method that reads
    them. Batch sizes are those of an update: micro-batches
    and processes share them. `by_length`: batches of rows of like length, which have fewer pads.
    `scrambled_batch_size` retain prompts with answers of random words (`training.scrambled`) stand beside each update.
    """
    if method.pairs and len(others) != len(rows):
        raise ValueError(f"{len(rows)} rows and other responses to {len(others)} of them")
    connect()
    params, chosen = params or {}, method.trainer or LossTrainer
    settings = read_settings(method.settings, params) if method.settings else None
    total, world = min(optim.batch_size, len(rows)), world_size()
    micro = min(optim.micro_batch_size or total, -(-total // world))
    slices = -(-total // (micro * world))  # rounded up: fewer rows than a batch are one update too
    retain_size = -(-retain_batch_size // (slices * world)) if retain_batch_size else micro
    steps = (-(-len(r) // (size * slices * world)) for r, size in ((rows, micro), (retain_rows, retain_size)))
    length = chosen.length(optim, settings, *steps)
    arguments = TrainingArguments(
        **trainer_arguments(
            optim,
            work,
            seed,
            device,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=slices,
            num_train_epochs=optim.epochs,
            max_steps=optim.steps or length or -1,
            warmup_steps=optim.warmup_ratio,
            save_steps=optim.save_every,
        )
    )
    sampler = RetainSampler(retain_rows, retain_size, seed) if retain_rows and retain != "none" else None
    random_words = scrambled(retain_rows, seed) if scrambled_batch_size else []
    random_size = -(-scrambled_batch_size // (slices * world))
    muon = isinstance(optim, UnlearningOptim) and optim.name == "muon"
    trainer = chosen(
        model=model,
        args=arguments,
        optimizers=(
            MuonWithAdamW(model, optim.lr, optim.weight_decay, optim.adam_beta2) if muon else None,
            None,
        ),
        train_dataset=list(enumerate(rows)),  # type: ignore[arg-type]
        callbacks=[Bookkeeping(work), *callbacks],
        method=method,
        params={k: v for k, v in params.items() if k not in type(settings).model_fields}
        if settings
        else params,
        settings=settings,
        forget_weight=forget_weight,
        retain=retain,
        retain_weight=retain_weight,
        retain_sampler=sampler,
        pair_sampler=PairSampler(others, seed) if method.pairs else None,
        reference=reference,
        tokenizer=tokenizer,
        targets=targets,
        by_length=by_length,
        scrambled_sampler=RetainSampler(random_words, random_size, seed) if random_words else None,
        scrambled_weight=scrambled_weight,
    )
    run_trainer(trainer, work)
