"""The unlearning stage: from the original model to an unlearned checkpoint, by whichever method the config names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from dareu.config import DareUConfig, HFConfig, LossMethodConfig, NewtonConfig, VectorConfig
from dareu.data.refusals import REFUSALS, load_refusals
from dareu.data.render import Encoded, encode_samples
from dareu.runs.manifest import content_key
from dareu.workflow.alternates import KEPT, alternates_for, reads_refusals, refusals_for
from dareu.workflow.prepare import digest
from dareu.workflow.procedures import by_newton, by_vector
from dareu.workflow.stages import Artifact, Bench


def unlearn_key(bench: Bench) -> str:
    """Content key of the unlearned model; the attributor is part of it only where the method reads it."""
    config = bench.config
    tree = {
        "original": bench.original_key,
        "forget": bench.split.forget_owners,
        "method": config.method.model_dump(
            exclude={"optim": {"save_every"}, "search": True, "refusals": True}
        ),
        "seed": config.seed,
    }
    if bench.forgotten != bench.split.forget_owners:  # a later round
        tree["forgotten"] = bench.forgotten
    if config.original:  # of a model that was fine-tuned here, its key covers these
        tree["adapter"] = config.model.model_dump(include={"adapter", "lora"})
        tree["data"] = digest(bench.corpus.samples)
    if isinstance(config.method, DareUConfig):
        tree |= _read_by_rl(bench, config.method)
    elif isinstance(config.method, LossMethodConfig) and reads_refusals(config.method):
        tree["refusals"] = load_refusals(config.method.refusals)  # what they say, not where they lie
    return content_key(tree)


def _read_by_rl(bench: Bench, method: DareUConfig) -> dict[str, Any]:
    """What the result of a method that samples depends on beside its own keys."""
    read: dict[str, Any] = {}
    if method.reads_attributor:
        read["attributor"] = bench.attributor_key
    elif method.advantage.estimator == "critic":
        read["critic"] = bench.config.attributor.backbone.model_dump()
    if method.refusal_phase or method.reward.kind == "refusal":
        read["refusals"] = list(REFUSALS)
    return read


def unlearn(bench: Bench, logs: Path | None = None) -> Artifact:
    """Run the method, or take its result from the store. `logs` is where a logger may write.

    The artifact holds `model/`, `training.jsonl`, and in its manifest how training ended.
    """
    config, key = bench.config, unlearn_key(bench)
    original = bench.original
    if isinstance(config.method, DareUConfig) and config.method.reads_attributor:
        _ = bench.attributor  # made before this stage's clock starts
    _import_engine(config.method)
    with bench.store.building("unlearned", key, config=config.method.model_dump(), seed=config.seed) as build:
        if build.done:
            bench.talk.say(f"[green]✓[/] unlearned by {config.method.name} [dim]from the store[/]")
            return bench.artifact(build, key)
        from dareu.models.load import save_model
        from dareu.training.common import Work, checkpoint_named, write_log

        with bench.talk.stage(f"unlearned by {config.method.name}"):
            policy, tokenizer = _policy(bench, original.model)
            work = Work(
                build.work,
                build.tick,
                report_to=_logger(bench, logs),
                run_name=f"{config.method.name}-seed{config.seed}",
                log_every=config.logging.every,
                progress=bench.talk.bar(f"unlearning by {config.method.name}"),
            )
            with checkpoint_named(work):
                if isinstance(config.method, DareUConfig):
                    from dareu.workflow.reinforce import by_rl

                    outcome = by_rl(bench, policy, tokenizer, work)
                elif isinstance(config.method, VectorConfig):
                    outcome = by_vector(bench, policy, tokenizer, work)
                elif isinstance(config.method, NewtonConfig):
                    outcome = by_newton(bench, policy, tokenizer, work)
                else:
                    outcome = _by_loss(bench, policy, tokenizer, work)
            save_model(policy, tokenizer, build.out / "model")
            write_log(work, build.out / "training.jsonl")
            if (build.work / KEPT).is_file():
                shutil.copy(build.work / KEPT, build.out)
            build.finish(**outcome)
    if outcome.get("stopped"):
        bench.talk.say(f"  [dim]stopped after {outcome['steps']} updates: {outcome['stopped']}[/]")
    return bench.artifact(build, key)


def _import_engine(method: Any) -> None:
    """Imports are no part of a stage's seconds."""
    if isinstance(method, DareUConfig):
        import dareu.training.rl_trainer  # noqa: F401
    elif isinstance(method, NewtonConfig):
        import dareu.methods.scurenewton  # noqa: F401
    else:
        import dareu.training.loss_trainer  # noqa: F401


def _policy(bench: Bench, original: Path) -> tuple[Any, Any]:
    """The original model, trainable. One from elsewhere gets the adapter that the config asks for, or loses its own.

    A fresh adapter changes nothing yet, so that its frozen twin is the original.
    """
    from transformers import set_seed

    from dareu.models.load import add_lora, is_peft

    policy, tokenizer = bench.load(original, trainable=True)
    config = bench.config.model
    if bench.config.original and isinstance(config, HFConfig):
        if config.adapter == "lora" and not is_peft(policy):
            set_seed(bench.config.seed)
            policy = add_lora(policy, config.lora)
        elif config.adapter == "none" and is_peft(policy):
            policy = policy.merge_and_unload().requires_grad_(True)
    return policy, tokenizer


def _by_loss(bench: Bench, policy: Any, tokenizer: Any, work: Any) -> dict[str, Any]:
    from dareu.methods.registry import find_method, needs_reference
    from dareu.models.load import freeze_original, pick_device
    from dareu.training.loss_trainer import train_with_loss

    method = bench.config.method
    assert isinstance(method, LossMethodConfig)
    row = find_method(method.loss)
    length, task = bench.config.model.max_length, bench.corpus.task
    forget = encode_samples(tokenizer, bench.split.forget, task, length)
    retain = encode_samples(tokenizer, bench.split.retain, task, length)
    train_with_loss(
        policy,
        tokenizer,
        method=row,
        optim=method.optim,
        rows=forget if row.walks == "forget" else retain,
        retain_rows=retain,
        retain=method.retain,
        retain_batch_size=method.retain_batch_size,
        params=method.params,
        forget_weight=method.forget_weight,
        retain_weight=method.retain_weight,
        reference=freeze_original(policy) if needs_reference(row, method.retain) else None,
        others=_others(bench, policy, tokenizer, work.folder),
        seed=bench.config.seed,
        device=str(pick_device(bench.config.device)),
        work=work,
    )
    return {"steps": work.log[-1]["step"] if work.log else 0, "stopped": None}


def _others(bench: Bench, policy: Any, tokenizer: Any, folder: Path) -> list[list[Encoded]]:
    """For each forget row the responses that the method pairs with it; none where it pairs none.

    `policy` is still the original model.
    """
    from dareu.methods.registry import find_method

    config, forget, task = bench.config, bench.split.forget, bench.corpus.task
    assert isinstance(config.method, LossMethodConfig)
    if find_method(config.method.loss).pairs == "alternate":
        limit = bench.response_limit(tokenizer)
        progress = bench.talk.bar("alternate answers")
        return alternates_for(config, forget, policy, tokenizer, task, limit, folder, progress)
    return refusals_for(config, forget, tokenizer, task)


def _logger(bench: Bench, logs: Path | None) -> str:
    """The logger's name, its settings put where it looks for them."""
    logging = bench.config.logging
    if logging.report_to == "none":
        return "none"
    folder = logs or Path("logs")
    folder.mkdir(parents=True, exist_ok=True)
    if logging.report_to == "wandb":
        os.environ["WANDB_PROJECT"] = logging.project
        os.environ["WANDB_DIR"] = str(folder)
        os.environ.setdefault("WANDB_SILENT", "true")
        if logging.offline:
            os.environ["WANDB_MODE"] = "offline"
    else:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
    return logging.report_to
