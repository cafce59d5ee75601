"""What every trainer here shares: arguments, checkpoints that are whole, the log, the guard against bad losses."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dareu.config import DareUConfig, OptimBase
from dareu.errors import ConfigError, TrainingError
from dareu.models.progress import StepBar
from dareu.runs.checkpoints import last_checkpoint, mark_complete, resume_point
from dareu.runs.files import write_jsonl
from dareu.runs.ranks import world_size
from dareu.training.best_weights import BestWeights


@dataclass
class Work:
    """Where a training stage works and whom it tells.

    `folder` holds checkpoints and the log; `tick` is called at each checkpoint; `on_row` is given each row of the log,
    a resumed training's earlier ones too; `best` looks for the best weights.
    """

    folder: Path
    tick: Callable[[], None] = lambda: None
    on_row: Callable[[Mapping[str, Any]], None] = lambda row: None
    log_every: int = 1
    progress: str | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    best: BestWeights | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def apart(self, folder: Path) -> "Work":
        """For a training that comes before this one: a folder and a log of its own, whose rows nobody is told."""
        return Work(folder, self.tick, log_every=self.log_every, progress=self.progress)


def rollout_batch(config: DareUConfig, prompts: int) -> tuple[int, int, int]:
    """(prompts in a batch of rollouts, parts that have updates of their own, rollouts in a micro-batch of a part).

    Parts are equal, and so are the shares of processes: a batch whose rollouts they do not divide gets more prompts,
    some of them twice.

    Raises:
        ConfigError: A part cannot be cut into micro-batches.
    """
    world, generations = world_size(), config.num_generations
    per_batch = min(config.prompts_per_batch or prompts, prompts)
    parts = (
        math.ceil(per_batch * generations / config.rollouts_per_update) if config.rollouts_per_update else 1
    )
    # One row fills two places.
    while per_batch * generations % (parts * world) or per_batch * generations < 2:
        per_batch += 1
    rollouts = per_batch * generations // parts  # of an update
    micro = min(config.optim.micro_batch_size or rollouts, max(1, rollouts // world))
    if rollouts % (micro * world):
        raise ConfigError(
            f"An update on {rollouts} rollouts ({per_batch} prompts × {generations}"
            f"{f', in {parts} parts' if parts > 1 else ''}) cannot be cut into "
            f"micro-batches of {micro} on each of {world} process(es).",
            "Choose method.optim.micro_batch_size as a divisor; method.prompts_per_batch and method.num_generations "
            "say how many rollouts there are.",
        )
    if config.use_vllm and generations < 2:
        raise ConfigError("vLLM samples in groups of at least two.", "Set method.num_generations=2 or more.")
    return per_batch, parts, micro


def trainer_arguments(optim: OptimBase, work: Work, seed: int, device: str, **extra: Any) -> dict[str, Any]:
    """Keyword arguments common to `TrainingArguments` and `GRPOConfig`."""
    return {
        "output_dir": str(work.checkpoints),
        "learning_rate": optim.lr,
        "weight_decay": optim.weight_decay,
        "lr_scheduler_type": optim.scheduler,
        "max_grad_norm": optim.max_grad_norm,
        "adam_beta2": optim.adam_beta2,
        "bf16": optim.bf16,
        "seed": seed,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "logging_strategy": "steps",
        "logging_steps": work.log_every,
        "logging_nan_inf_filter": False,
        "report_to": [],  # `Work.on_row` has the log
        "disable_tqdm": True,  # `StepBar` draws the bar
        "use_cpu": device == "cpu",
        # No buffer is trained; and how often a process passes its rows through the model depends on their lengths.
        "ddp_broadcast_buffers": False,
        "dataloader_pin_memory": device != "cpu",
        "remove_unused_columns": False,
        **extra,
    }


def _row(step: int, logs: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the log, its keys in the one order that a resumed run has too: checkpoints keep them sorted."""
    return {"step": step, **{key: logs[key] for key in sorted(logs) if key != "step"}}


class Bookkeeping(StepBar):
    """Marks checkpoints complete, keeps the log, refuses losses that are not finite, draws a bar."""

    def __init__(self, work: Work) -> None:
        super().__init__(work.progress)
        self.work = work

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A resumed run takes up the log where its checkpoint stands.
        rows = [r for r in state.log_history if "step" in r]
        self.work.log[:] = [_row(r["step"], r) for r in rows if r["step"] <= state.global_step]
        for row in self.work.log:
            self.work.on_row(row)
        super().on_train_begin(args, state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        if self.work.best is not None:
            self.work.best.step(model, state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        logs = logs or {}
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise non_finite(state.global_step)
        if "train_runtime" not in logs:
            self.work.log.append(_row(state.global_step, logs))
            self.work.on_row(self.work.log[-1])

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        # A finite loss may have a gradient that is not. Such a checkpoint stays without its marker.
        if not all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad):
            raise non_finite(state.global_step, "weights are")
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.work.tick()


def run_trainer(trainer: Any, work: Work) -> None:
    """Train from the newest whole checkpoint in `work`, without the callback that prints every logged line."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    checkpoint = resume_point(work.checkpoints)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def non_finite(step: int, what: str = "loss is") -> TrainingError:
    return TrainingError(
        f"The {what} not finite at step {step}; training was stopped.",
        "Lower the learning rate, or lower the weight of the forget term.",
    )


@contextmanager
def checkpoint_named(work: Work) -> Iterator[None]:
    """Within it an error of training also says where the last good checkpoint was kept.

    Raises:
        TrainingError: As raised within.
    """
    try:
        yield
    except TrainingError as error:
        kept = last_checkpoint(work.checkpoints)
        where = f"The last good checkpoint is kept in {kept}." if kept else "There was no checkpoint yet."
        raise TrainingError(error.cause, f"{error.cure} {where}") from None


def write_log(work: Work, path: Path) -> None:
    """The training log as JSON lines, one logged step a line."""
    write_jsonl(path, work.log)
