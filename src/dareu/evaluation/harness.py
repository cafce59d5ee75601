"""Tasks of lm-evaluation-harness on a loaded checkpoint: what the model can still do beside the data of the run.

The harness is the extra `lm_eval`; its tasks come with their own data sets, which it downloads or finds in the local
cache.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from dareu.errors import ConfigError, DataError


def check_harness(tasks: Sequence[str]) -> None:
    """Check that the harness is installed where tasks are wanted.

    Raises:
        ConfigError: It is not.
    """
    if tasks and find_spec("lm_eval") is None:
        raise ConfigError(
            "evaluation.lm_eval needs lm-evaluation-harness, which is not installed.",
            "Install it: pip install 'dareu[lm_eval]', or set evaluation.lm_eval=[].",
        )


def harness_figures(
    model: Any, tokenizer: Any, tasks: Sequence[str], *, batch_size: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Task → metric → value, as the harness reports them, standard errors included ("acc", "acc_stderr", …).

    Raises:
        ConfigError: where the harness is not installed.
        DataError: where the harness cannot run the tasks; its own message is quoted.
    """
    check_harness(tasks)
    if not tasks:
        return {}
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    was_training = model.training
    try:
        adapted = HFLM(pretrained=model.eval(), tokenizer=tokenizer, batch_size=batch_size)
        evaluated = simple_evaluate(
            model=adapted,
            tasks=list(tasks),
            log_samples=False,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except Exception as error:
        # An unknown task, a data set that is not there: whatever the harness raises is said.
        first = (str(error).strip().splitlines() or [""])[0]
        raise DataError(
            f"lm-evaluation-harness could not run {', '.join(tasks)} ({type(error).__name__}: {first}).",
            "Check the names with `lm_eval ls tasks`; their data sets need the network or the local hub cache.",
        ) from error
    finally:
        model.train(was_training)
    return {
        task: {
            name.removesuffix(",none").replace(",", "_"): float(value)
            for name, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for task, figures in (evaluated or {}).get("results", {}).items()
    }
