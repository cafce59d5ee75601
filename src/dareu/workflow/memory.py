"""The memory that a run will take, estimated before it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dareu.config import HFConfig
from dareu.runs.ranks import world_size
from dareu.workflow.context import Context
from dareu.workflow.given_adapter import keeps_adapter
from dareu.workflow.keys import names_a_base

CHARACTERS = 3.5  # of a token, about


def memory_parts(context: Context) -> dict[str, float] | None:
    """MiB by part (`models.memory.estimate`), of fine-tuning or unlearning, whichever takes more; None where the
    model's shape cannot be read beforehand. Of several processes those of one.

    Lengths are counted in characters, not tokens: an estimate.
    """
    from dareu.models.load import pick_device
    from dareu.models.memory import Work, estimate, size_of
    from dareu.models.processes import engine
    from dareu.models.without_weights import model_without_weights

    config, processes = context.config, world_size()
    model = model_without_weights(config)
    if model is None:
        return None
    hf = config.model if isinstance(config.model, HFConfig) else None
    lora = hf.lora if hf is not None and hf.adapter == "lora" else None
    size = size_of(
        model,
        lora.r if lora else None,
        config.model.dtype,
        dropout=bool(lora and lora.dropout),
        quantization=hf.quantization if hf else None,
    )
    samples = context.corpus.samples
    answers = _tokens(max(len(s.response) for s in samples), config.model.max_length)
    length = _tokens(max(len(s.prompt) + len(s.response) for s in samples), config.model.max_length)
    saves = bool(hf and hf.gradient_checkpointing)

    def work(
        optim: Any, batch: int, beside: int | None, sampled: int = 0, frozen: bool = True, muon: bool = False
    ) -> Work:
        """An update of `batch` rows; `beside`: retain rows, where the original (`frozen`) stands beside."""
        rows = optim.micro_batch_size or -(-batch // processes)
        rows += min(beside or rows, rows) if frozen else 0
        of_run = {"checkpointing": saves, "processes": processes, "engine": engine(), "muon": muon}
        own = -(-sampled // processes)
        return Work(rows, length, answers, own, frozen=frozen, bf16=optim.bf16, **of_run)  # type: ignore[arg-type]

    finetune, method = config.finetune, config.method
    works = [work(finetune, finetune.batch_size, None, frozen=False)]
    if (optim := getattr(method, "optim", None)) is not None:
        prompts = getattr(method, "prompts_per_batch", 0)
        prompts = len(context.split.forget) if prompts is None else prompts
        sampled = prompts * getattr(method, "num_generations", 1)
        batch = getattr(optim, "batch_size", None) or sampled
        beside = getattr(method, "retain_batch_size", None)
        unlearning = work(optim, batch, beside, sampled, muon=method.optimizer == "muon")
        works.append(replace(unlearning, base=_loads_base(context, lora is not None)))
    if warm := getattr(method, "warm_start", None):
        muon = warm.optim.name == "muon"
        works.append(work(warm.optim, warm.optim.batch_size, warm.retain_batch_size, muon=muon))
    device = str(pick_device(config.device))
    return max((estimate(size, one, device) for one in works), key=lambda parts: parts["total"])


def _loads_base(context: Context, lora: bool) -> bool:
    """Whether the method reads a base that is another model than the policy without its adapter."""
    from dareu.methods.registry import method_of

    config = context.config
    below = keeps_adapter(config) if config.original else lora
    known = not config.original or names_a_base(context.base, context.imported)
    return known and not below and method_of(config.method).reads_calibration(config)


def check_run_memory(context: Context) -> str | None:
    """A warning where the run may not fit, None where it does. The built-in model always does.

    Raises:
        ConfigError: The model's weights and optimizer alone do not fit.
    """
    from dareu.models.load import pick_device
    from dareu.models.memory import available_mib, check_memory

    if not isinstance(context.config.model, HFConfig):
        return None
    parts: dict[str, Any] | None = memory_parts(context)
    return check_memory(parts, available_mib(str(pick_device(context.config.device)))) if parts else None


def _tokens(characters: int, most: int) -> int:
    return min(most, int(characters / CHARACTERS) + 16)
