"""Libraries kept quiet, each for a reason, and nothing sent anywhere."""

from __future__ import annotations

import gc
import io
import logging
import os
import warnings
from contextlib import redirect_stdout


def quiet() -> None:
    """Called once before any stage runs."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "false"
    )  # batches are small, and forked workers warn otherwise
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    # A notebook without ipywidgets gets plain bars, and a warning with the path of tqdm at its import.
    warnings.filterwarnings("ignore", message="IProgress not found")
    import datasets
    import transformers

    with redirect_stdout(
        io.StringIO()
    ):  # where WANDB_MODE=offline is set, it says so on stdout when imported
        import transformers.integrations.integration_utils

    transformers.logging.set_verbosity_error()  # advice on settings that are chosen here on purpose
    transformers.utils.logging.disable_progress_bar()  # one bar for each file of weights
    datasets.disable_progress_bars()
    for name in ("trl", "accelerate", "peft", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Transformers calls itself by names that it is about to rename.
    warnings.filterwarnings(
        "ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning
    )
    # On a CPU there is no memory to pin; torch says so at each loader.
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    # The scheduler is stepped by the Trainer; on resume torch cannot see that the optimizer was stepped before.
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
    # Attention over left-padded rows has positions without any key; their output is masked.
    warnings.filterwarnings("ignore", message=".*Passing `?attention_mask`?.*")


def settle() -> None:
    """What the imported libraries are made of, out of the garbage collector's sight: it lives as long as the process.

    accelerate collects whenever a training loop begins, a third of a second each time. For a process of its own: in a
    notebook, the user's garbage of the moment would stay as well.
    """
    if not gc.get_freeze_count():
        gc.freeze()
