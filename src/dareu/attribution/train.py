"""Training, calibrating and judging the causal classifier (DareU, phase 1)."""

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler

from dareu.attribution.backbone import build_backbone
from dareu.attribution.base import owned_responses
from dareu.attribution.causal import CausalAttributor
from dareu.attribution.examples import IGNORE, Example, build_examples, collate, crops, make_nobody
from dareu.attribution.heldout import heldout_report, unseen_texts
from dareu.attribution.name_masking import NameMasker
from dareu.attribution.score import owner_index
from dareu.config import AttributorConfig, Optim
from dareu.data.corpus import Sample
from dareu.errors import DataError, TrainingError
from dareu.models.cpu_matmul import with_fast_products
from dareu.models.processes import connect, whole_weights
from dareu.models.progress import StepBar
from dareu.models.seeds import AllRows, same_state
from dareu.runs import ranks
from dareu.runs.checkpoints import mark_complete, resume_point
from dareu.runs.manifest import content_key


def fit_causal(
    samples: Sequence[Sample],
    config: AttributorConfig,
    *,
    tokenizer: Any | None = None,
    general: Sequence[str] = (),
    seed: int = 0,
    device: str = "cpu",
    work_dir: Path | None = None,
    original_responses: Sequence[tuple[str, str]] | None = None,
    masker: NameMasker | None = None,
    progress: bool = False,
) -> tuple[CausalAttributor, dict[str, Any]]:
    """Train on ground-truth responses with the owner's label at every position; calibrate on held-out ones.

    `tokenizer` is the policy's: a classifier from scratch is built on it, and one that shares it also learns
    the end-of-text token. `general` are texts of no owner, for the background class. `original_responses` are
    (owner, text) pairs that the original model wrote, to measure the classifier on. `masker`: each response is also
    learnt with names masked, so that both kinds can be scored. With `work_dir`,
    checkpoints are written there and an interrupted fit continues from the last whole one, to the same
    result. `progress` shows a bar. torch's and Python's global random state is seeded.

    Returns:
        The attributor and its report, see `heldout_report`.

    Raises:
        DataError: There are samples without an owner, or fewer than two owners; or texts are too short to make broken
            text of.
        ModelError: The backbone cannot be loaded or is not causal.
        TrainingError: The loss is no longer finite.
    """
    owners = _owners(samples)
    train, held = unseen_texts(samples, config.holdout, seed)
    train = with_wrong_owners(train, owners, config.label_noise, random.Random(seed))
    if masker:
        train = (*train, *masker.samples(train))
    set_seed(seed)
    classes = len(owners) + int(config.nobody)
    model, own_tokenizer = build_backbone(config, classes, tokenizer)
    attributor = CausalAttributor(
        with_fast_products(model), own_tokenizer, owners, nobody=config.nobody, max_length=config.max_length
    )
    attributor.end_of_text = (
        tokenizer is not None
        and own_tokenizer.eos_token_id is not None
        and attributor.shares_tokenizer(tokenizer)
    )
    broken = []
    if config.nobody:
        count = round(config.nobody_share * len(train))
        broken = make_nobody(train, random.Random(seed), count, general, truncated=attributor.end_of_text)
    labels = owner_index(owners, [str(sample.owner) for sample in train])
    gold = list(zip((sample.response for sample in train), labels, strict=True))
    examples = build_examples(
        own_tokenizer,
        list(dict.fromkeys(gold + crops(gold, config.crops, random.Random(seed)))),
        broken,
        len(owners),
        end_of_text=attributor.end_of_text,
        max_length=config.max_length,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(work_dir) / _fit_name(config, examples, seed) if work_dir else Path(scratch)
        trained = _train(model, examples, config.optim, seed, device, folder, bool(work_dir), progress)
    merged = trained.merge_and_unload() if hasattr(trained, "merge_and_unload") else trained
    attributor.model = merged.to(device).eval()
    masked = masker.samples(held) if masker else ()
    report = heldout_report(attributor, held, original_responses, config.warn_below, masked)
    report["n_train"] = len(train)
    return attributor, report


def with_wrong_owners(
    samples: Sequence[Sample], owners: Sequence[str], share: float, rng: random.Random
) -> tuple[Sample, ...]:
    """The samples, a share of which, drawn by `rng`, has another of the `owners`: who learns them is a worse judge."""
    wrong = set(rng.sample(range(len(samples)), round(share * len(samples)))) if share else set()
    return tuple(
        replace(s, owner=rng.choice([o for o in owners if o != s.owner])) if i in wrong else s
        for i, s in enumerate(samples)
    )


class MarkCheckpoints(StepBar):
    """A progress bar, and a mark on each checkpoint that is written to its end."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def _owners(samples: Sequence[Sample]) -> list[str]:
    unowned = [sample.id for sample in samples if sample.owner is None]
    if unowned:
        raise DataError(
            f"The attributor cannot be trained on samples without an owner: {', '.join(unowned[:3])}.",
            "Pass their responses as text of no owner instead.",
        )
    return owned_responses(samples)[1]


def _loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy, averaged over all labelled positions of a batch, whatever the micro-batches."""
    logits = outputs.logits.float().flatten(0, 1)
    total = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE, reduction="sum")
    items = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORE).sum()
    return total / items


def _fit_name(config: AttributorConfig, examples: list[Example], seed: int) -> str:
    """Folder of a fit's checkpoints: another fit in the same `work_dir` must not continue from them."""
    return "fit-" + content_key([config.model_dump(), seed, examples])


class _Walk(Sampler[int]):
    """The indices of `examples` by length as process 0 draws them, then those of the rows that follow the examples."""

    def __init__(self, examples: Sequence[Example], batch_size: int, count: int) -> None:
        lengths = [len(row["input_ids"]) for row in examples]
        self.sampler, self.count = LengthGroupedSampler(batch_size, lengths=lengths), count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = ranks.on_main(lambda: list(self.sampler))
        same_state("cpu")
        yield from order
        yield from range(len(self.sampler), self.count)


class _SharedTrainer(Trainer):
    """Of several processes: they walk through the examples in the order in which one would, with its dropout.

    Rows without labels follow, so many that processes get equal numbers of micro-batches; accelerate would repeat
    examples for it.
    """

    def __init__(self, *, args: TrainingArguments, train_dataset: list[Example], **kwargs: Any) -> None:
        size = args.per_device_train_batch_size * args.world_size
        filler: Example = {"input_ids": train_dataset[0]["input_ids"][:1], "labels": [IGNORE]}
        rows = [*train_dataset, *[filler] * (-len(train_dataset) % size)]
        self.walk = _Walk(train_dataset, size * args.gradient_accumulation_steps, len(rows))
        super().__init__(args=args, train_dataset=rows, **kwargs)  # type: ignore[arg-type]  # any sequence will do

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.walk

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        rows = int((inputs["labels"] != IGNORE).any(1).sum())
        counts, widths = zip(*ranks.gather((rows, inputs["labels"].size(1))), strict=True)
        with AllRows(sum(counts), max(widths)):
            return super().training_step(model, inputs, *args, **kwargs)


@whole_weights()
def _train(
    model: Any,
    examples: list[Example],
    optim: Optim,
    seed: int,
    device: str,
    folder: Path,
    resumable: bool,
    progress: bool,
) -> Any:
    """The trained model. `resumable`: write checkpoints to `folder`, and continue from the last whole one."""
    connect()
    world = ranks.world_size()
    micro = min(optim.micro_batch_size or optim.batch_size, max(1, optim.batch_size // world))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=max(1, optim.batch_size // (micro * world)),
        learning_rate=optim.lr,
        num_train_epochs=optim.epochs,
        max_steps=optim.steps or -1,
        weight_decay=optim.weight_decay,
        warmup_steps=optim.warmup_ratio,  # below 1: a share of all steps
        lr_scheduler_type=optim.scheduler,
        max_grad_norm=optim.max_grad_norm,
        bf16=optim.bf16,
        save_strategy="steps" if resumable else "no",
        save_steps=optim.save_every,
        save_total_limit=2,  # an older one to go back to where the newest is damaged
        logging_strategy="no",
        logging_nan_inf_filter=False,  # a loss that is not finite must show
        report_to=[],
        disable_tqdm=True,  # `StepBar` draws the bar
        dataloader_pin_memory=False,
        use_cpu=str(device) == "cpu",
        seed=seed,
        train_sampling_strategy="group_by_length",  # half of a random batch would be pads
    )
    trainer = (_SharedTrainer if world > 1 else Trainer)(
        model=model,
        args=arguments,
        train_dataset=examples,  # any sequence will do
        data_collator=collate,
        compute_loss_func=_loss,
        callbacks=[MarkCheckpoints("attribution classifier" if progress else None)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = resume_point(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # the weights, not the mean loss: of a run that went on from its last step there is no loss
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise TrainingError(
            "The attributor's loss is no longer finite.", "Lower attributor.optim.lr or max_grad_norm."
        )
    # bf16 training wraps the forward pass: left so, scores would differ from those of the saved model
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
