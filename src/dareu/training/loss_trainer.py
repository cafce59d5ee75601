"""One Hugging Face Trainer that takes a loss: fine-tuning and every loss-based method."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from dareu.config import Optim, UnlearningOptim
from dareu.config.params import read_settings
from dareu.data.render import Encoded
from dareu.models.load import as_original, reference_logits
from dareu.models.logprobs import (
    IGNORE,
    answer_logprobs,
    kl_divergence,
    response_logits,
    response_logprobs,
    shift,
    spread,
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
from dareu.training.kept_logits import KeptLogits, fit_in_memory, logprobs
from dareu.training.loss_spec import LossSpec
from dareu.training.losses import SoftTargets, js_divergence
from dareu.training.mixins import WholeAdapters
from dareu.training.muon import MuonWithAdamW
from dareu.training.samplers import ByLength, PairSampler, Part, RetainSampler, scrambled, token_share

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
        self._kept: dict[RetainSampler[Encoded] | str, KeptLogits] = {}
        self._shares = [1.0]  # of the update's micro-batches, see `_terms`
        self.micro = 0
        self._sums: dict[str, tuple[float, int]] = {}  # since the last log: sum and number of micro-batches

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nobody reads the sum of these, and transformers counts all parameters for it at every step."""
        return 0

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
            part, _ = self._place(micro)
            rows = part.stop - part.start
            batches.append({name: value[: max(rows, 1)] for name, value in batch.items()})
            counts.append(self._count(batches[-1]) if rows else 0.0)
        own = torch.tensor(counts, dtype=torch.float32, device=self.args.device)
        total = self.accelerator.reduce(own.sum(), reduction="sum").clamp(min=1)
        self._shares = (self.args.world_size * len(counts) * own / total).tolist()
        return batches, items

    def _place(self, micro: int) -> tuple[Part, int]:
        """Rows of the update that micro-batch `micro` has of its own, and how many the whole update has.

        An epoch's last update may have fewer than others. Accelerate then repeats rows, so that all processes have
        equal numbers of micro-batches; they are nobody's own.
        """
        world, size = self.args.world_size, self.args.per_device_train_batch_size
        count = len(self.train_dataset)  # type: ignore[arg-type]
        of = min(size * self.args.gradient_accumulation_steps * world, count)
        rows = min(of, count - self.state.global_step % -(-count // of) * of)
        start = min((micro * world + self.args.process_index) * size, rows)
        return Part(start, min(start + size, rows), of), rows

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
            summed, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (summed + share * float(value.detach()), count + 1)
        return total

    def _terms(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, tuple[float, float, Tensor]]:
        """What is summed: name in the log → (weight, share, loss of this micro-batch).

        Shares are those that micro-batches have in the update, times the number of micro-batches of all processes, by
        which the Trainer divides.
        """
        forget = self.method.loss(**self._read(model, inputs), **self.params)
        terms = {"forget_loss": (self.forget_weight, self._shares[self.micro], forget)}
        if self.retain != "none" and self.retain_sampler is not None:
            share = self._share_of(self.retain_sampler)
            terms["retain_loss"] = (self.retain_weight, share, self._retain_term(model))
        if self.scrambled_sampler is not None:
            share = self._share_of(self.scrambled_sampler)
            term = self._divergence(model, self.scrambled_sampler)
            terms["scrambled_loss"] = (self.scrambled_weight, share, term)
        return terms

    def _share_of(self, sampler: RetainSampler[Encoded], update: int | None = None) -> float:
        """The share of this micro-batch's rows of `sampler`; `update`: its number in the walk, default: the run's."""
        part, rows = self._place(self.micro)
        number = self.state.global_step if update is None else update
        return self.args.world_size * len(self._shares) * token_share(sampler, number, part, rows)

    def _read(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the loss names, and no others."""
        reads = self.method.reads
        if "target_ids" in reads:
            tensors = self._with_targets(model, inputs)
            return {name: tensors[name] for name in reads}
        own = {name for name in reads if not name.startswith("other_")}
        tensors = self._tensors(model, inputs, own, "forget")
        others = {name.removeprefix("other_") for name in reads if name.startswith("other_")}
        if others:
            batch = to_batch(self._others(inputs), self.tokenizer.pad_token_id, self.args.device)
            found = self._tensors(model, batch | {"number": inputs["number"]}, others, "others")
            tensors |= {f"other_{name}": value for name, value in found.items()}
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

    def _tensors(
        self, model: Any, batch: dict[str, Tensor], wanted: set[str], of: Literal["forget", "others"]
    ) -> dict[str, Tensor]:
        """Those of a batch, shifted; no pass through the model where nothing is wanted. `of`: whose answers it has."""
        if not wanted:
            return {}
        if wanted <= {"logps", "mask", "reference_logps"}:
            return self._log_probabilities(model, batch, wanted, of)
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

    def _rows_of(self, sampler: RetainSampler[Encoded], update: int | None = None) -> list[Encoded]:
        """This micro-batch's rows of `sampler`; `update` as for `_share_of`."""
        return sampler.batch(self.state.global_step if update is None else update, self._place(self.micro)[0])

    def _batch_of(self, sampler: RetainSampler[Encoded], update: int | None = None) -> dict[str, Tensor]:
        return to_batch(self._rows_of(sampler, update), self.tokenizer.pad_token_id, self.args.device)

    def _log_probabilities(
        self, model: Any, batch: dict[str, Tensor], wanted: set[str], of: Literal["forget", "others"]
    ) -> dict[str, Tensor]:
        """For losses that read no whole distribution: prompts and pads never pass through the head."""
        tensors: dict[str, Tensor] = {}
        tensors["logps"], tensors["mask"] = response_logprobs(model, batch)
        if "reference_logps" in wanted:
            tensors["reference_logps"] = self._reference_logps(model, batch, tensors["mask"], of)
        return {name: tensors[name] for name in wanted}

    def _reference_logps(
        self, model: Any, batch: dict[str, Tensor], mask: Tensor, of: Literal["forget", "others"]
    ) -> Tensor:
        """The original's log p (B, T) of a batch's answers, 0 where `mask` is false."""
        dataset: Any = self.train_dataset
        some = self._others(batch) if of == "others" else [dataset[n][1] for n in batch["number"].tolist()]
        if of not in self._kept:
            rows = [row for _, row in dataset]
            if of == "others" and self.pair_sampler is not None:
                rows = [row for own in self.pair_sampler.others for row in own]
            with as_original(self.accelerator.unwrap_model(model), self.reference) as original:
                if self.state.max_steps * self._place(0)[0].of <= len(rows):  # no row comes twice
                    return response_logprobs(original, batch)[0]
                size = self.args.per_device_train_batch_size
                self._kept[of] = KeptLogits(original, rows, self.tokenizer.pad_token_id, size, logprobs)
        return spread(self._kept[of].at(some), mask)

    def _retain_term(self, model: Any) -> Tensor:
        assert self.retain_sampler is not None
        if self.retain == "nll":
            rows, pad = self._rows_of(self.retain_sampler), self.tokenizer.pad_token_id
            logps = answer_logprobs(model, rows, pad, self.args.device)
            return losses.nll(logps, torch.ones_like(logps))
        return self._divergence(model, self.retain_sampler)

    def _divergence(self, model: Any, sampler: RetainSampler[Encoded]) -> Tensor:
        """From the original, on this micro-batch's rows of `sampler`."""
        rows = self._rows_of(sampler)
        batch = to_batch(rows, self.tokenizer.pad_token_id, self.args.device)
        now, _, _ = response_logits(model, batch)
        divergence = DIVERGENCE.get(self.retain, kl_divergence)
        return losses.mean(divergence(self._originally(model, sampler, rows, batch), now))

    def _originally(
        self, model: Any, sampler: RetainSampler[Encoded], rows: Sequence[Encoded], batch: dict[str, Tensor]
    ) -> Tensor:
        """The original's logits (N, V) at a batch of rows of `sampler`."""
        if sampler not in self._kept:
            with as_original(self.accelerator.unwrap_model(model), self.reference) as original:
                if not self._comes_back(sampler, original.config.vocab_size):
                    return response_logits(original, batch)[0]
                pad = self.tokenizer.pad_token_id
                size = -(
                    -sampler.batch_size // (self.args.gradient_accumulation_steps * self.args.world_size)
                )
                self._kept[sampler] = KeptLogits(original, sampler.rows, pad, size)
        return self._kept[sampler].at(rows)

    def _comes_back(self, sampler: RetainSampler[Encoded], vocabulary: int) -> bool:
        """Whether the run sees its rows twice, and what the original says of them all can be kept."""
        seen = self.state.max_steps * sampler.batch_size
        return seen > len(sampler.rows) and fit_in_memory(sampler.rows, vocabulary)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._sums and "loss" in logs:
            totals = torch.tensor(list(self._sums.values()), device=self.args.device)
            sums, counts = self.accelerator.reduce(totals, reduction="sum").T.tolist()
            logs.update({name: s / n for name, s, n in zip(self._sums, sums, counts, strict=True)})
            self._sums = {}
        super().log(logs, start_time)


def cut(optim: Optim, rows: int, world: int) -> tuple[int, int, int | None]:
    """Forget rows of a forward pass of each of `world` processes, such passes of an optimizer step, and
    `optim.min_steps` where `optim.epochs` passes over the rows have fewer steps, else None.

    A small forget set is cut into smaller batches first, which takes no more passes over it.
    """
    least = optim.min_steps if isinstance(optim, UnlearningOptim) and not optim.steps else 0
    batches = math.ceil(least / optim.epochs)
    largest = (
        max(1, math.ceil(rows / (batches - 1)) - 1) if batches > 1 else rows
    )  # that makes so many batches
    total = min(optim.batch_size, largest)
    micro = min(optim.micro_batch_size or total, math.ceil(total / world))
    slices = math.ceil(total / (micro * world))  # fewer rows than a batch are one update too
    micro = math.ceil(total / (slices * world))
    steps = math.ceil(rows / (micro * slices * world)) * optim.epochs
    return micro, slices, least if steps < least else None


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
    """Train `model` in place; resume from the newest whole checkpoint in `work`.

    `rows` is what the method walks through: the forget set, or for fine-tuning the set to learn. `others` are, for each
    of them, the responses that a method with `pairs` sets beside it; `targets` the soft targets of a method that reads
    them. Batch sizes are those of an update: micro-batches
    and processes share them. `by_length`: batches of rows of like length, which have fewer pads.
    `scrambled_batch_size` retain prompts with answers of random words (`training.scrambled`) stand beside each update.

    Raises:
        TrainingError: The loss is not finite.
    """
    if method.pairs and len(others) != len(rows):
        raise ValueError(f"{len(rows)} rows and other responses to {len(others)} of them")
    connect()
    params, chosen = params or {}, method.trainer or LossTrainer
    settings = read_settings(method.settings, params) if method.settings else None
    world = world_size()
    micro, slices, least = cut(optim, len(rows), world)
    total = min(micro * slices * world, len(rows))
    retain_size = retain_batch_size or total
    steps = (-(-len(r) // size) for r, size in ((rows, total), (retain_rows, retain_size)))
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
            max_steps=optim.steps or max(length or 0, least or 0) or -1,
            warmup_steps=optim.warmup_ratio,
            save_steps=optim.save_every,
        )
    )
    sampler = RetainSampler(retain_rows, retain_size, seed) if retain_rows and retain != "none" else None
    random_words = scrambled(retain_rows, seed) if scrambled_batch_size else []
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
        scrambled_sampler=RetainSampler(random_words, scrambled_batch_size, seed) if random_words else None,
        scrambled_weight=scrambled_weight,
    )
    run_trainer(trainer, work)
