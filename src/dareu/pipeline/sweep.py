"""`dareu train -m`: Hydra's sweeper and launcher walk over the grid, one table closes it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dareu.config import parse
from dareu.errors import DareuError
from dareu.pipeline.compose import config_folder
from dareu.pipeline.console import Talk
from dareu.pipeline.train import train

# Where jobs note how they ended: a file, so that launchers that start processes of their own can write it too.
NOTES = "DAREU_SWEEP_NOTES"


def job(tree: Any) -> None:
    """One run of a sweep. A run that fails is noted, and the others go on."""
    from omegaconf import OmegaConf

    overrides = ""
    try:
        from hydra.core.hydra_config import HydraConfig

        overrides = " ".join(HydraConfig.get().overrides.task)
        Talk().say(f"[bold]{overrides}[/]")
        container: Any = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
        note = {"run_dir": train(parse(container))["run_dir"]}
    except DareuError as error:
        note = {"failed": str(error), "exit_code": str(error.exit_code)}
        Talk().say(f"[red]✗ {error}[/]")
    with open(os.environ[NOTES], "a", encoding="utf-8") as file:
        file.write(json.dumps({"overrides": overrides} | note) + "\n")


def sweep(overrides: Sequence[str], config_dir: str | None = None) -> tuple[list[str], list[dict[str, str]]]:
    """Run the grid; (run folders in the order they ended, notes of those that failed)."""
    import hydra

    extra = ["--config-dir", config_dir] if config_dir else []
    quiet_hydra = [
        "hydra/job_logging=disabled",
        "hydra/hydra_logging=disabled",
        "hydra.output_subdir=null",
        "hydra.sweep.dir=.",
        "hydra.sweep.subdir=.",
        "hydra.job.chdir=false",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        notes = Path(scratch) / "notes.jsonl"
        notes.touch()
        argv, before = sys.argv, os.environ.get(NOTES)
        os.environ[NOTES] = str(notes)
        sys.argv = ["dareu", "-m", *extra, *overrides, *quiet_hydra]
        try:
            hydra.main(config_path=str(config_folder()), config_name="train", version_base="1.3")(job)()
        finally:
            sys.argv = argv
            os.environ.pop(NOTES, None)
            if before is not None:
                os.environ[NOTES] = before
        ended = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    return [e["run_dir"] for e in ended if "run_dir" in e], [e for e in ended if "failed" in e]
