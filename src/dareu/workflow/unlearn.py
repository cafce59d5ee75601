"""The unlearning stage: from the original model to an unlearned checkpoint, by whichever method the config names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from dareu.config import HFConfig
from dareu.methods.base import MethodContext
from dareu.methods.registry import method_of
from dareu.runs.manifest import content_key
from dareu.workflow.prepare import digest
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
    tree |= method_of(config.method).key(config, lambda stage: str(getattr(bench, f"{stage}_key")))
    return content_key(tree)


def unlearn(bench: Bench, logs: Path | None = None) -> Artifact:
    """Run the method, or take its result from the store. `logs` is where a logger may write.

    The artifact holds `model/`, `training.jsonl`, and in its manifest how training ended.
    """
    config, key = bench.config, unlearn_key(bench)
    original = bench.original
    method = method_of(config.method)
    if method.reads_attributor(config):
        _ = bench.attributor  # made before this stage's clock starts
    method.import_engine()
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
                outcome = method.run(_context(bench, policy, tokenizer, work))
            save_model(policy, tokenizer, build.out / "model")
            write_log(work, build.out / "training.jsonl")
            for name in method.keep:
                if (build.work / name).is_file():
                    shutil.copy(build.work / name, build.out)
            build.finish(**outcome)
    if outcome.get("stopped"):
        bench.talk.say(f"  [dim]stopped after {outcome['steps']} updates: {outcome['stopped']}[/]")
    return bench.artifact(build, key)


def _context(bench: Bench, policy: Any, tokenizer: Any, work: Any) -> MethodContext:
    from dareu.models.load import pick_device

    return MethodContext(
        config=bench.config,
        corpus=bench.corpus,
        split=bench.split,
        forgotten=bench.forgotten,
        policy=policy,
        tokenizer=tokenizer,
        work=work,
        device=str(pick_device(bench.config.device)),
        response_limit=bench.response_limit(tokenizer),
        attributor_folder=bench.attributor_folder,
        progress=bench.talk.bar,
    )


def _policy(bench: Bench, original: Path) -> tuple[Any, Any]:
    """The original model, trainable. One from elsewhere gets the adapter that the config asks for, or loses its own.

    A fresh adapter changes nothing yet, so that its frozen twin is the original.
    """
    from transformers import set_seed

    from dareu.models.load import add_lora, checkpoint_activations, is_peft

    policy, tokenizer = bench.load(original, trainable=True)
    config = bench.config.model
    if bench.config.original and isinstance(config, HFConfig):
        if config.adapter == "lora" and not is_peft(policy):
            set_seed(bench.config.seed)
            policy = add_lora(policy, config.lora)
        elif config.adapter == "none" and is_peft(policy):
            policy = policy.merge_and_unload().requires_grad_(True)
    if isinstance(config, HFConfig) and config.gradient_checkpointing:
        checkpoint_activations(policy)
    return policy, tokenizer


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
