"""Run folders: what a person opens after a run. `run.json` says which run a folder holds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dareu.errors import RunError
from dareu.runs.files import check_writable, read_json, unwritable, write_json, write_text
from dareu.runs.manifest import file_digest

RUN, CONFIG, RESULTS = "run.json", "config.yaml", "results.json"
# What may stand in a folder before its run.json: a failure noted ahead of the start, a killed writer's file.
HARMLESS = ("failure.json", ".tmp")


def default_run_dir(method: str, seed: int, key: str) -> Path:
    """Where a run goes that was given no folder: `runs/<method>-seed<seed>-<start of its key>`."""
    return Path("runs") / f"{method}-seed{seed}-{key[:8]}"


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds the run with content key `key`."""

    path: Path
    key: str

    @property
    def finished(self) -> bool:
        return (self.path / RESULTS).is_file()

    @classmethod
    def open(cls, path: str | Path, key: str, config_yaml: str, overwrite: bool = False) -> RunFolder:
        """The folder at `path` for the run `key`, made where it is missing; if the run is there, it goes on.

        `RunError`, with nothing touched, where another run lies there (unless `overwrite`), where files lie
        there that belong to no run (always), and where nothing can be written.
        """
        path = Path(path).expanduser()
        held = _held(path)
        if held is not None and held != key:
            if not overwrite:
                raise RunError(
                    f"The run folder {path} already holds another run.",
                    "Give another run_dir, or overwrite=true.",
                )
            check_writable(path)
            _empty(path)
        else:
            check_writable(path)
        if held != key:
            write_json(path / RUN, {"key": key})
        if (
            held != key or not (path / CONFIG).is_file()
        ):  # a process killed between the two left only the first
            write_text(path / CONFIG, config_yaml)
        return cls(path, key)


def copy_into(source: str | Path, target: str | Path, overwrite: bool = False) -> Path:
    """Copy a model folder to `target` and return that; a copy that is there already is left alone.

    `RunError` where `target` holds something else; `overwrite` replaces another model, other files never.
    """
    source, target = Path(source), Path(target).expanduser()
    if target.is_dir() and any(target.iterdir()):
        if _digests(source) == _digests(target):
            return target
        if not any((target / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise RunError(f"{target} holds files that are no model's.", "Give another run_dir.")
        if not overwrite:
            raise RunError(
                f"{target} already holds another model.", "Give another run_dir, or overwrite=true."
            )
    check_writable(target)
    partial = target.parent / f".{target.name}.partial"
    try:
        if partial.is_dir():
            shutil.rmtree(partial)
        shutil.copytree(source, partial)
        if target.is_dir():
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as error:
        raise unwritable(target, error) from None
    return target


def _held(path: Path) -> str | None:
    """Key of the run that lies at `path`; None where nothing does."""
    if not path.is_dir():
        return None
    if (path / RUN).is_file():
        tree = read_json(path / RUN)
        return str(tree.get("key")) if isinstance(tree, dict) else "?"
    if any(not p.name.endswith(HARMLESS) for p in path.iterdir()):
        raise RunError(
            f"The folder {path} holds files, but no run.", "Give another run_dir: an empty or a new folder."
        )
    return None


def _empty(path: Path) -> None:
    """Remove what is in a run folder, `run.json` last, so that a killed removal can be done again."""
    try:
        for child in sorted(path.iterdir(), key=lambda p: p.name == RUN):
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()
    except OSError as error:
        raise unwritable(path, error) from None


def _digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
