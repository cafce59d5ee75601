"""Random numbers that a step, and not the process or what came before, decides."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dareu.runs import ranks


@contextmanager
def seeded(seed: int, device: Any = "cpu") -> Iterator[None]:
    """torch draws by `seed` inside the block, on the CPU and on `device`; afterwards its state is as it was before."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class SeededSteps:
    """Of a Trainer: what a micro-batch draws (dropout) is a function of seed, update and place in the update.

    So processes that share the micro-batches of an update draw what one process draws for them, and so does a run that
    goes on from a checkpoint.
    """

    micro = -1  # number of the micro-batch in the update under way

    def get_batch_samples(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.micro = -1
        return super().get_batch_samples(*args, **kwargs)  # type: ignore[misc]

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.micro += 1
        options = self.args
        done = self.state.global_step * options.gradient_accumulation_steps + self.micro
        place = done * options.world_size + options.process_index
        with seeded(options.seed * 1_000_003 + place, options.device):
            return super().training_step(*args, **kwargs)  # type: ignore[misc]


@contextmanager
def one_stream(device: Any) -> Iterator[None]:
    """Processes whose rows are parts of one batch sample from it as a process with all rows would.

    Afterwards all processes have the random state of the one that sampled the longest responses. With one process
    nothing changes.
    """
    if ranks.world_size() == 1:
        yield
        return
    same_state(device)
    with AllRows() as rows:
        yield
    counts = ranks.gather(rows.samples)
    same_state(device, counts.index(max(counts)))


def same_state(device: Any, rank: int = 0) -> None:
    """Give every process the random state of process `rank`: that of the CPU and of `device`."""
    torch.set_rng_state(ranks.gather(torch.get_rng_state())[rank])
    if torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(ranks.gather(torch.cuda.get_rng_state(device))[rank], device)


class AllRows(TorchFunctionMode):
    """Inside the block each process draws the random numbers of the rows of all processes and uses those of its own.

    So it samples (`torch.multinomial`, one sample a row) and drops what one process with all rows would, where the
    processes have equally many rows, in the order of ranks, and begin with the same random state.

    Args:
        rows, width: for dropout on (B, T, …): the rows of all processes, without those that fill up the last ones, and
            the tokens of the longest. Without them dropout is that of the process alone.
    """

    def __init__(self, rows: int = 0, width: int = 0) -> None:
        super().__init__()
        self.rows, self.width, self.samples = rows, width, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is torch.multinomial:
            self.samples += 1
            return self._sample(args[0])
        if func is F.dropout and self.rows:
            return self._drop(*args, **options)
        return func(*args, **options)

    def _sample(self, probs: Tensor) -> Tensor:
        """What `torch.multinomial` does for one sample a row: argmax(p / q) with q of Exp(1)."""
        noise = probs.new_empty(len(probs) * ranks.world_size(), *probs.shape[1:]).exponential_()
        return (probs / _own(noise, len(probs))).argmax(-1, keepdim=True)

    def _drop(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        everything = torch.dropout(x.new_ones(self.rows, self.width, *x.shape[2:]), p, True)
        factors = torch.ones_like(x)
        own = _own(everything, len(x))
        factors[: len(own)] = own[:, : x.size(1)]
        return x * factors


def _own(values: Tensor, rows: int) -> Tensor:
    """This process's rows."""
    first = ranks.rank() * rows
    return values[first : first + rows]
