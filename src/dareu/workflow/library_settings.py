"""Other libraries, kept quiet while dareu works and left as they were afterwards."""

import gc
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout

# Read by libraries when they are imported or when they work. A value that the user has set wins.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Kernels that oneDNN, and torch's layer on it, keep for each shape of a product: 1024 each, which take hundreds of
    # MB where lengths are many. A kernel stays as long as one of the two has it.
    "LRU_CACHE_CAPACITY": "64",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "TOKENIZERS_PARALLELISM": "false",  # batches are small, and forked workers warn otherwise
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
LOGGERS = ("trl", "accelerate", "peft", "huggingface_hub", "bitsandbytes")
WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # Transformers calls itself by names that it is about to rename.
    (".*gradient_checkpointing.* is deprecated", FutureWarning),
    # accelerate's new name for it; the Trainer passes the old one.
    (".*broadcast_buffers.* is deprecated", FutureWarning),
    # On a CPU there is no memory to pin; torch says so at each loader.
    (".*pin_memory.*", Warning),
    # The scheduler is stepped by the Trainer; on resume torch cannot see that the optimizer was stepped before.
    (".*lr_scheduler.step.*", Warning),
    # Attention over left-padded rows has positions without any key; their output is masked.
    (".*Passing `?attention_mask`?.*", Warning),
    # peft turns names of a mixture's linear layers into names of its expert tensors, and warns of its own patterns.
    ("The following (rank|alpha)_pattern keys", RuntimeWarning),
    # Torch of itself, where bitsandbytes makes it import its compiler.
    (".*torch.jit.script.* is deprecated", DeprecationWarning),
    # A notebook without ipywidgets gets plain bars.
    ("IProgress not found", Warning),
)


@contextmanager
def quiet_libraries(threads: int | None = None) -> Iterator[None]:
    """Neither advice nor progress bars of other libraries inside, and torch on so many threads, in its usual modes.

    Everything that is changed is restored at the end: environment, warning filters, log levels, bars, threads, modes.
    May be entered again inside, which quiets what has been imported since.

    Args:
        threads: Threads of torch; None leaves them alone.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for message, category in WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        for name, value in ENVIRONMENT.items():
            if name not in os.environ:
                os.environ[name] = value
                stack.callback(os.environ.pop, name, None)
        for logger in map(logging.getLogger, LOGGERS):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        _quiet_transformers(stack)
        datasets = sys.modules.get("datasets")  # its import takes a while, and not every run needs it
        if datasets is not None and not datasets.are_progress_bars_disabled():
            stack.callback(datasets.enable_progress_bars)
            datasets.disable_progress_bars()
        if "torch" in sys.modules:
            _usual_modes(stack)
        if threads is not None:
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        yield


def _usual_modes(stack: ExitStack) -> None:
    """Gradients, float32, no autocast and the CPU where no other is named: a caller may have chosen otherwise."""
    import torch

    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    if torch.get_default_device().type != "cpu":
        stack.enter_context(torch.device("cpu"))


def _quiet_transformers(stack: ExitStack) -> None:
    """No advice on settings that are chosen here on purpose, no bar for each file of weights."""
    if os.environ.get("WANDB_MODE") == "offline":
        with redirect_stdout(io.StringIO()):  # it says so on stdout when it is imported
            import transformers.integrations.integration_utils  # noqa: F401
    from transformers.utils import logging as of_transformers

    stack.callback(of_transformers.set_verbosity, of_transformers.get_verbosity())
    of_transformers.set_verbosity_error()
    if of_transformers.is_progress_bar_enabled():
        stack.callback(of_transformers.enable_progress_bar)
        of_transformers.disable_progress_bar()


@contextmanager
def without_collecting() -> Iterator[None]:
    """No garbage collection inside: while libraries are imported it looks at what they are made of again and again,
    which takes a fifth of the time of torch and transformers.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def freeze_imports() -> None:
    """Keep what imported libraries are made of out of the garbage collector's sight: it lives as long as the process.

    accelerate collects whenever a training loop begins, a third of a second each time. For a process of its own: in a
    notebook, the user's garbage of the moment would stay as well.
    """
    if not gc.get_freeze_count():
        gc.freeze()
