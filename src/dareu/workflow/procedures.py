"""Methods that are no loss and no RL: task-vector negation and Newton steps. `unlearning.py` calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dareu.config import NewtonConfig, VectorConfig
from dareu.data.render import encode_samples

if TYPE_CHECKING:
    from dareu.workflow.stages import Bench


def by_vector(bench: Bench, policy: Any, tokenizer: Any, work: Any) -> dict[str, Any]:
    from dareu.methods.task_vector import negate_by_training
    from dareu.models.load import pick_device

    method = bench.config.method
    assert isinstance(method, VectorConfig)
    length = negate_by_training(
        policy,
        tokenizer,
        config=method,
        rows=encode_samples(tokenizer, bench.split.forget, bench.corpus.task, bench.config.model.max_length),
        seed=bench.config.seed,
        device=str(pick_device(bench.config.device)),
        work=work,
    )
    return {"steps": work.log[-1]["step"] if work.log else 0, "stopped": None, "vector_length": length}


def by_newton(bench: Bench, policy: Any, tokenizer: Any, work: Any) -> dict[str, Any]:
    from dareu.methods.scurenewton import newton_steps

    method = bench.config.method
    assert isinstance(method, NewtonConfig)
    task, limit = bench.corpus.task, bench.config.model.max_length
    newton_steps(
        policy,
        tokenizer,
        config=method,
        forget=encode_samples(tokenizer, bench.split.forget, task, limit),
        retain=encode_samples(tokenizer, bench.split.retain, task, limit),
        seed=bench.config.seed,
        work=work,
    )
    return {"steps": method.outer_steps, "stopped": None}
