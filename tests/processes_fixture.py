"""Two processes of a test file that is its own worker, or of a command, started as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT = 240
TESTS = Path(__file__).parent


def start_two(*arguments: str) -> list[subprocess.Popen[str]]:
    """`python ARGUMENTS` twice, ranks 0 and 1 over gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    search_path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path, "COLUMNS": "200",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@contextmanager
def two_processes(file: str, folder: Path) -> Iterator[None]:
    """`python FILE FOLDER` twice; both have ended well when the block is left."""
    workers = start_two(file, str(folder))
    try:
        yield
        outputs = ["".join(worker.communicate(timeout=TIMEOUT)) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    codes = [worker.returncode for worker in workers]
    assert codes == [0, 0], "\n".join(output[-3000:] for output in outputs)


def saved_by_two(file: str, folder: Path) -> list[Any]:
    """What `python FILE FOLDER` saves as rank0.pt and rank1.pt in the folder."""
    import torch

    with two_processes(file, folder):
        pass
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]
