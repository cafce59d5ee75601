"""Training, calibrating and judging the causal classifier (DareU, phase 1)."""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainingArguments, set_seed

from dareu.attribution.backbone import build_backbone
from dareu.attribution.calibrate import expected_calibration_error, fit_temperature
from dareu.attribution.causal import CausalAttributor
from dareu.attribution.examples import IGNORE, Example, build_examples, collate
from dareu.attribution.nobody import make_nobody
from dareu.attribution.score import owner_index
from dareu.config import AttributorConfig, Optim
from dareu.data.corpus import Sample
from dareu.data.split import holdout
from dareu.errors import DataError, TrainingError

logger = logging.getLogger(__name__)


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
    progress: bool = False,
) -> tuple[CausalAttributor, dict[str, Any]]:
    """Train on ground-truth responses with the owner's label at every position; calibrate on held-out ones.

    `tokenizer` is the policy's: a classifier from scratch is built on it, and one that shares it also learns
    the end-of-text token. `general` are texts of no owner, for the nobody class. `original_responses` are
    (owner, text) pairs that the original model wrote, to judge the classifier on. With `work_dir`, checkpoints
    are written there and a run that was cut off goes on from the last whole one.

    Returns the attributor and its report, see `heldout_report`. `DataError` for unowned samples or fewer than
    two owners; `TrainingError` where the loss is no longer finite.
    """
    owners = _owners(samples)
    train, held = holdout(samples, config.holdout, seed)
    set_seed(seed)
    classes = len(owners) + int(config.nobody)
    model, own_tokenizer = build_backbone(config, classes, tokenizer)
    attributor = CausalAttributor(
        model, own_tokenizer, owners, nobody=config.nobody, max_length=config.max_length
    )
    attributor.end_of_text = (
        tokenizer is not None and own_tokenizer.eos_token_id is not None and attributor.shares_tokenizer(tokenizer)
    )
    broken = []
    if config.nobody:
        count = round(config.nobody_share * len(train))
        broken = make_nobody(train, random.Random(seed), count, general, truncated=attributor.end_of_text)
    labels = owner_index(owners, [str(sample.owner) for sample in train])
    examples = build_examples(
        own_tokenizer,
        list(zip((sample.response for sample in train), labels, strict=True)),
        broken,
        len(owners),
        end_of_text=attributor.end_of_text,
        max_length=config.max_length,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as scratch:
        _train(model, examples, config.optim, seed, device, work_dir, Path(scratch), progress)
    attributor.model = (model.merge_and_unload() if hasattr(model, "merge_and_unload") else model).to(device).eval()
    report = heldout_report(attributor, held, original_responses, config.warn_below)
    report["n_train"] = len(train)
    for warning in report["warnings"]:
        logger.warning(warning)
    return attributor, report


def heldout_report(
    attributor: CausalAttributor,
    held: Sequence[Sample],
    original_responses: Sequence[tuple[str, str]] | None = None,
    warn_below: float = 0.0,
) -> dict[str, Any]:
    """Fit the attributor's temperature on held-out responses, at every position, and judge it there.

    Keys: `accuracy_heldout` (whole responses), `accuracy_heldout_by_quarter` (mean accuracy over prefixes that
    end in the 1st … 4th quarter), `ece_before` and `ece_after` the temperature (whole responses), `temperature`,
    `accuracy_original_responses`, `n_heldout`, `warnings`. None where there is nothing to compute from.
    """
    logits = [rows.numpy() for rows in attributor.position_logits([sample.response for sample in held])]
    labels = owner_index(attributor.owners, [str(sample.owner) for sample in held])
    kept = [(rows, label) for rows, label in zip(logits, labels, strict=True) if len(rows)]
    report: dict[str, Any] = {"n_heldout": len(held), "warnings": []}
    report |= dict.fromkeys(("accuracy_heldout", "ece_before", "ece_after", "accuracy_original_responses"))
    report["accuracy_heldout_by_quarter"] = [None] * 4
    if kept:
        every = np.concatenate([rows for rows, _ in kept])
        gold = np.concatenate([np.full(len(rows), label) for rows, label in kept])
        quarter = np.concatenate([4 * np.arange(len(rows)) // len(rows) for rows, _ in kept])
        right = every.argmax(axis=1) == gold
        last, last_gold = np.stack([rows[-1] for rows, _ in kept]), np.array([label for _, label in kept])
        attributor.temperature = fit_temperature(every, gold)
        report["accuracy_heldout"] = float((last.argmax(axis=1) == last_gold).mean())
        report["accuracy_heldout_by_quarter"] = [
            float(right[quarter == q].mean()) if (quarter == q).any() else None for q in range(4)
        ]
        for key, temperature in (("ece_before", 1.0), ("ece_after", attributor.temperature)):
            report[key] = expected_calibration_error(_softmax(last / temperature), last_gold)
    else:
        report["warnings"].append("No response was held out: the attributor is neither calibrated nor judged.")
    report["temperature"] = attributor.temperature
    if original_responses:
        texts = [text for _, text in original_responses]
        truth = owner_index(attributor.owners, [owner for owner, _ in original_responses])
        guess = attributor.probabilities(texts).argmax(axis=1)
        written = np.array([bool(text.strip()) for text in texts])  # an empty text is nobody's: never right
        report["accuracy_original_responses"] = float(((guess == truth) & written).mean())
    for key, what in (
        ("accuracy_heldout", "held-out responses"),
        ("accuracy_original_responses", "the original model's own responses"),
    ):
        if report[key] is not None and report[key] < warn_below:
            report["warnings"].append(
                f"The attributor names the right owner for only {report[key]:.0%} of {what} (below {warn_below:.0%})."
            )
    return report


def _owners(samples: Sequence[Sample]) -> list[str]:
    unowned = [sample.id for sample in samples if sample.owner is None]
    if unowned:
        raise DataError(
            f"The attributor cannot be trained on samples without an owner: {', '.join(unowned[:3])} …",
            "Pass their responses as text of no owner instead.",
        )
    owners = list(dict.fromkeys(str(sample.owner) for sample in samples))
    if len(owners) < 2:
        raise DataError(f"An attributor needs at least two owners; got {len(owners)}.", "Add data of other owners.")
    return owners


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits).double(), dim=-1).numpy()


def _loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
    """Cross-entropy, averaged over all labelled positions of a batch, whatever the micro-batches."""
    logits = outputs.logits.float().flatten(0, 1)
    total = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE, reduction="sum")
    items = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORE).sum()
    return total / items


def _train(
    model: Any,
    examples: list[Example],
    optim: Optim,
    seed: int,
    device: str,
    work_dir: Path | None,
    scratch: Path,
    progress: bool,
) -> None:
    micro = optim.micro_batch_size or optim.batch_size
    arguments = TrainingArguments(
        output_dir=str(work_dir or scratch),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=optim.batch_size // micro,
        learning_rate=optim.lr,
        num_train_epochs=optim.epochs,
        max_steps=optim.steps or -1,
        weight_decay=optim.weight_decay,
        warmup_steps=optim.warmup_ratio,  # below 1: a share of all steps
        lr_scheduler_type=optim.scheduler,
        max_grad_norm=optim.max_grad_norm,
        bf16=optim.bf16,
        save_strategy="steps" if work_dir else "no",
        save_steps=optim.save_every,
        save_total_limit=1,
        logging_strategy="no",
        logging_nan_inf_filter=False,  # a loss that is not finite must show
        report_to=[],
        disable_tqdm=not progress,
        dataloader_pin_memory=False,
        use_cpu=str(device) == "cpu",
        seed=seed,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=examples,  # type: ignore[arg-type]  # any sequence will do
        data_collator=collate,  # type: ignore[arg-type]
        compute_loss_func=_loss,
    )
    trainer.remove_callback(PrinterCallback)
    result = trainer.train(resume_from_checkpoint=last_whole_checkpoint(work_dir))
    if not np.isfinite(result.training_loss):
        raise TrainingError(
            "The attributor's loss is no longer finite.", "Lower attributor.optim.lr or max_grad_norm."
        )


def last_whole_checkpoint(work_dir: Path | None) -> str | None:
    """The newest checkpoint that was written to its end (the trainer's state is written last)."""
    if work_dir is None or not Path(work_dir).is_dir():
        return None
    whole = [path.parent for path in Path(work_dir).glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
