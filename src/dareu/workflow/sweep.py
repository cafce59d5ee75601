"""`dareu train -m`: Hydra's sweeper and launcher walk over the grid, one table closes it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from dareu.config import parse
from dareu.config.compose import check_overrides, compose, config_folder, settable
from dareu.errors import DareuError
from dareu.workflow.console import Talk
from dareu.workflow.experiment import train

# Where jobs note how they ended: a file, so that launchers that start processes of their own can write it too. Its
# first line names the keys that are swept over.
NOTES = "DAREU_SWEEP_NOTES"


def job(tree: Any) -> None:
    """One run of a sweep. A run that fails is noted, and the others go on."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    notes = Path(os.environ[NOTES])
    swept = json.loads(notes.read_text(encoding="utf-8").partition("\n")[0])
    chosen = [o.lstrip("+") for o in HydraConfig.get().overrides.task]
    overrides = " ".join(o for o in chosen if not swept or o.partition("=")[0] in swept)
    note: dict[str, Any] = {"overrides": overrides}
    talk = Talk()
    talk.say(f"[bold]{escape(overrides)}[/]")
    try:
        container: Any = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
        config = parse(container)
        train(config, talk=talk, under=config.run_dir, opened=lambda path: note.update(run_dir=str(path)))
    except DareuError as error:
        note |= {"failed": str(error), "exit_code": error.exit_code}
    except Exception as error:  # one run that a bug or a full memory stops does not end the sweep
        traceback.print_exc()
        note |= {"failed": f"{type(error).__name__}: {error}", "exit_code": 1}
    if "failed" in note:
        talk.say(f"[red]✗ {escape(note['failed'])}[/]")
    with notes.open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")


def sweep(overrides: Sequence[str], config_dir: str | None = None) -> list[dict[str, Any]]:
    """Run the grid. One note a run, in the order they ended: `overrides`; `run_dir` once it had its folder;
    `failed` (why) and `exit_code` where it did not end well.

    `ConfigError`, before any run starts, where one of them could not be composed. `run_dir=PATH` is the folder
    of the run folders.
    """
    import hydra

    check_overrides(overrides, config_dir, sweep=True)
    runs = grid(overrides)
    for one in runs:
        compose(one, config_dir)
    common = set(runs[0]).intersection(*runs) if runs else set()
    swept = sorted({o.lstrip("+").partition("=")[0] for one in runs for o in one if o not in common})
    extra = ["--config-dir", str(Path(config_dir).absolute())] if config_dir else []
    quiet_hydra = [
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
        "hydra.output_subdir=null",
        "hydra.sweep.subdir=.",
        "hydra.job.chdir=false",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        notes = Path(scratch) / "notes.jsonl"
        notes.write_text(json.dumps(swept) + "\n", encoding="utf-8")
        argv, before = sys.argv, os.environ.get(NOTES)
        os.environ[NOTES] = str(notes)
        own = f"hydra.sweep.dir='{scratch}'"  # where Hydra puts a multirun.yaml
        sys.argv = ["dareu", "-m", *extra, *settable(overrides), *quiet_hydra, own]
        try:
            hydra.main(config_path=str(config_folder()), config_name="train", version_base="1.3")(job)()
        finally:
            sys.argv = argv
            os.environ.pop(NOTES, None)
            if before is not None:
                os.environ[NOTES] = before
        return [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()[1:]]


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of every run, as Hydra's own sweeper makes them; none where another sweeper chooses them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    if any(o.key_or_group.startswith("hydra") for o in parsed):
        return []
    if any(o.is_sweep_override() and not o.is_discrete_sweep() for o in parsed):
        return []
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(one) for one in batch]
