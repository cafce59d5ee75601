"""The supervised phase before reinforcement: refusals learnt by their likelihood, or soft targets by divergence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dareu.config import Optim, RefusalPhase, WarmStart
from dareu.data.render import Encoded
from dareu.runs.files import read_json, write_json
from dareu.training.common import Work
from dareu.training.early_stopping import GoodWeights
from dareu.training.loss_spec import FINETUNE, LossSpec
from dareu.training.loss_trainer import train_with_loss
from dareu.training.soft_targets import SoftTargets, divergence_from_targets

DISTIL = LossSpec(divergence_from_targets, reads=("answer_logits", "target_ids", "target_probs"))


def learn_refusals(
    policy: Any,
    tokenizer: Any,
    *,
    phase: RefusalPhase,
    rows: Sequence[Encoded],
    retain_rows: Sequence[Encoded],
    reference: Any,
    seed: int,
    device: str,
    work: Work,
) -> dict[str, Any]:
    """NLL on `rows` (forget prompts, each with a refusal) and the retain term, in place. Steps and last loss."""
    return _learn(
        policy,
        tokenizer,
        "refusals",
        work,
        method=FINETUNE,
        optim=phase.optim,
        rows=rows,
        retain_rows=retain_rows,
        retain=phase.retain,
        retain_weight=phase.retain_weight,
        reference=reference if phase.retain == "kl" else None,
        seed=seed,
        device=device,
    )


def learn_teachers(
    policy: Any,
    tokenizer: Any,
    *,
    phase: WarmStart,
    rows: Sequence[Encoded],
    targets: Sequence[SoftTargets],
    retain_rows: Sequence[Encoded],
    reference: Any,
    seed: int,
    device: str,
    work: Work,
) -> dict[str, Any]:
    """KL from `targets` at the answers of `rows`, and KL to `reference` on retain rows, in place. Steps, last loss."""
    return _learn(
        policy,
        tokenizer,
        "teachers",
        work,
        method=DISTIL,
        optim=phase.optim,
        rows=rows,
        targets=targets,
        retain_rows=retain_rows,
        retain="kl",
        retain_weight=phase.retain_weight,
        reference=reference,
        seed=seed,
        device=device,
    )


def _learn(
    policy: Any, tokenizer: Any, name: str, work: Work, *, optim: Optim, **options: Any
) -> dict[str, Any]:
    """`train_with_loss` in a folder of its own below `work`, with its checkpoints; its weights are kept there at its
    end, so that a resumed run takes them and does not repeat it.
    """
    folder = work.folder / name
    kept, note = GoodWeights(folder / "learnt.safetensors"), folder / "learnt.json"
    if kept.restore(policy):
        found: dict[str, Any] = read_json(note)
        return found
    own = replace(work, folder=folder, report_to="none", log=[])
    train_with_loss(policy, tokenizer, optim=optim, retain_batch_size=optim.batch_size, work=own, **options)
    losses = [row["forget_loss"] for row in own.log if "forget_loss" in row]
    found = {"steps": own.log[-1]["step"] if own.log else 0, "loss": losses[-1] if losses else None}
    if os.environ.get("RANK", "0") == "0":
        write_json(note, found)  # before the weights, whose being there says that the phase is over
        kept.keep(policy)
    return found
