"""Run notebooks and keep their outputs: python scripts/run_notebook.py docs/*.ipynb

The kernel is the interpreter that runs this; bars are off and no times are recorded, so that a notebook changes only
where its results do.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


def execute(path: Path, timeout: int = 300) -> nbformat.NotebookNode:
    """The notebook with fresh outputs. `nbclient.exceptions.CellExecutionError` where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    metadata = notebook.metadata.copy()
    with tempfile.TemporaryDirectory() as scratch:
        manager = AsyncKernelManager(
            kernel_spec_manager=KernelSpecManager(
                kernel_dirs=[]
            ),  # none installed: the running interpreter's
            connection_file=str(Path(scratch) / "kernel.json"),
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=timeout,
            record_timing=False,
            resources={"metadata": {"path": scratch}},
        )
        client.execute(env=os.environ | {"TQDM_DISABLE": "1", "IPYTHONDIR": scratch})
    notebook.metadata = metadata  # the kernel adds its Python version
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        nbformat.write(execute(Path(name)), name)
