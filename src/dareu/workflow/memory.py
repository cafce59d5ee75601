"""The memory that a run will take, estimated before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dareu.config import DareUConfig, HFConfig, LossMethodConfig, Optim, OptimBase, VectorConfig
from dareu.data.boundary_prompts import retain_count
from dareu.data.corpus import Sample, learnt
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
    length = max(_length(s, config.model.max_length) for s in samples)
    all_rows = len(learnt(samples, context.corpus))
    passes = [Pass(rows_at_once(config.finetune, all_rows, processes), config.finetune, frozen=False)]
    passes += _unlearning(context, processes, _loads_base(context, lora is not None), size.layers)
    works = [
        Work(
            one.rows,
            length,
            answers,
            one.sampled,
            checkpointing=bool(hf and hf.gradient_checkpointing),
            frozen=one.frozen,
            bf16=one.optim.bf16,
            processes=processes,
            engine=engine(),
            muon=getattr(one.optim, "name", None) == "muon",
            base=one.base,
            kept=one.kept,
        )
        for one in passes
    ]
    device = str(pick_device(config.device))
    return max((estimate(size, one, device) for one in works), key=lambda parts: parts["total"])


@dataclass(frozen=True)
class Pass:
    """Rows that pass through the model at once and are held until the backward pass, in one process.

    `optim`: how it trains; `sampled`: rows that are generated at once; `frozen`: the original stands beside the model;
    `base`, `kept`: as in `models.memory.Work`.
    """

    rows: int
    optim: OptimBase
    sampled: int = 0
    frozen: bool = True
    base: bool = False
    kept: int = 0


def rows_at_once(
    optim: Optim,
    rows: int,
    processes: int,
    *,
    retain: int | None = 0,
    scrambled: int = 0,
    pairs: bool = False,
) -> int:
    """Rows of one forward pass of `training.loss_trainer`, over all terms of the loss, in one of `processes`.

    `rows`: all that training walks through; `retain`: retain rows beside an update, None: as many as it has of these;
    `scrambled`: rows of random words beside it; `pairs`: each row has a second response.
    """
    from dareu.training.loss_trainer import cut

    micro, slices, _ = cut(optim, rows, processes)
    parts = slices * processes
    beside = min(micro * parts, rows) if retain is None else retain
    return micro * (1 + pairs) - (-beside // parts) - (-scrambled // parts)


def _unlearning(context: Context, processes: int, base: bool, blocks: int) -> list[Pass]:
    """The passes of the method's phases through so many blocks; none of a method that has no optimizer."""
    from dareu.methods.loss_method import LossMethod
    from dareu.methods.registry import method_of
    from dareu.training.loss_spec import needs_reference

    method, forget, retain = context.config.method, len(context.split.forget), len(context.split.retain)
    if isinstance(method, DareUConfig):
        return _reinforcement(method, forget, retain, processes, base)
    if isinstance(method, VectorConfig):  # the weights before it are kept
        return [Pass(rows_at_once(method.optim, forget, processes), method.optim)]
    row = method_of(method)
    if not isinstance(method, LossMethodConfig) or not isinstance(row, LossMethod):
        return []
    walked = row.samples(context.split)
    none = method.retain == "none" or not retain
    held = rows_at_once(
        method.optim,
        len(walked),
        processes,
        retain=0 if none else method.retain_batch_size,
        scrambled=method.scrambled_batch_size,
        pairs=row.pairs is not None,
    )
    frozen = needs_reference(row, method.retain, method.scrambled_batch_size)
    once = row.passed_once(context.config, blocks)
    kept = sum(_length(s, context.config.model.max_length) for s in walked) if once else 0
    return [Pass(held, method.optim, frozen=frozen, base=base, kept=kept)]


def _reinforcement(method: DareUConfig, forget: int, retain: int, processes: int, base: bool) -> list[Pass]:
    """Updates on rollouts, and the phase before them."""
    from dareu.training.rollouts import Plan

    plan = Plan.of(method, forget + retain_count(forget, retain, method.retain_prompts.share))
    parts = plan.slices * processes
    rows = plan.micro - (-plan.retain // parts if method.distill else 0)
    sampled = -(-plan.prompts * method.num_generations // processes)
    passes = [Pass(rows, method.optim, sampled, base=base)]
    if first := method.refusal_phase:
        beside = first.optim.batch_size if first.retain != "none" else 0
        passes.append(Pass(rows_at_once(first.optim, forget, processes, retain=beside), first.optim))
    if warm := method.warm_start:
        beside = warm.retain_batch_size or warm.optim.batch_size
        rows = rows_at_once(warm.optim, forget, processes, retain=beside, scrambled=warm.scrambled_batch_size)
        passes.append(Pass(rows, warm.optim))
    return passes


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

    model = context.config.model
    if not isinstance(model, HFConfig):
        return None
    parts: dict[str, Any] | None = memory_parts(context)
    if parts is None:
        return None
    available = available_mib(str(pick_device(context.config.device)))
    return check_memory(parts, available, keys_that_lower(model, context.config.method))


def keys_that_lower(model: HFConfig, method: Any) -> dict[str, list[str]]:
    """Part of the estimate → settings that make it smaller, but for those that the run has already; `weights` stands
    for all that stays.
    """
    weights = ["model.adapter=lora"] if model.adapter == "none" else []
    weights += ["model.dtype=bfloat16"] if model.dtype == "float32" else []
    weights += ["model.quantization=nf4"] if model.adapter == "lora" and not model.quantization else []
    parts = {"optim": method, "warm_start.optim": getattr(method, "warm_start", None)}
    parts["refusal_phase.optim"] = getattr(method, "refusal_phase", None)
    rows = [f"method.{key}.micro_batch_size" for key, part in parts.items() if hasattr(part, "optim")]
    rows.append("finetune.micro_batch_size")
    saves = [] if model.gradient_checkpointing else ["model.gradient_checkpointing=true"]
    return {
        "weights": weights,
        "activations": [*rows, "model.max_length", *saves],
        "logits": rows,
        "sampling": ["method.prompts_per_batch", "method.num_generations"],
        "kept_states": saves,
    }


def _length(sample: Sample, most: int) -> int:
    return _tokens(len(sample.prompt) + len(sample.response), most)


def _tokens(characters: int, most: int) -> int:
    return min(most, int(characters / CHARACTERS) + 16)
