"""Run folders: what a person opens after a run. `run.json` says which run a folder holds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dareu.config.paths import INPUTS, OUTPUTS
from dareu.errors import RunError, note
from dareu.runs import ranks
from dareu.runs.files import check_writable, read_json, write_json, write_text, writing_to
from dareu.runs.manifest import file_digest
from dareu.runs.owned import LOCK, RUN, check_inputs, own_files, remove_own_files

CONFIG, RESULTS = "config.yaml", "results.json"
COPY = ".dareu.json"  # in a folder that `copy_into` made: the files that it wrote there
# What may stand in a folder before its run.json: a failure recorded before the start, a killed writer's file, a lock.
HARMLESS = ("failure.json", ".tmp", LOCK)
PATIENCE = 2.0  # seconds of waiting for another command before a word about it


def default_run_dir(method: str, seed: int, key: str) -> Path:
    """Where a run goes that was given no folder: `runs/<method>-seed<seed>-<start of its key>`."""
    return Path("runs") / f"{method}-seed{seed}-{key[:8]}"


def input_paths(tree: Any, name: str = "") -> list[str]:
    """All text in a configuration tree that may name a file or a folder which the run reads."""
    if isinstance(tree, Mapping):
        return [p for key, child in tree.items() if key not in OUTPUTS for p in input_paths(child, str(key))]
    if isinstance(tree, list | tuple):
        return [p for child in tree for p in input_paths(child, name)]
    return [tree] if isinstance(tree, str) and (name in INPUTS or "/" in tree) else []


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds the run with content key `key`.

    Attributes:
        path: The folder.
        key: Content key of the run.
        lock: Held from `open` to `release`, so that no other command empties the folder meanwhile. None in a copy that
            was sent to another process.
    """

    path: Path
    key: str
    lock: FileLock | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> Any:
        return RunFolder, (self.path, self.key)

    @property
    def finished(self) -> bool:
        """Whether the run's results are there.

        Raises:
            RunError: Another run has taken the folder meanwhile.
        """
        return ranks.on_main(self._is_finished)

    def _is_finished(self) -> bool:
        if (self.path / RUN).is_file() and _held(self.path) != self.key:
            raise RunError(
                f"Another run has taken the folder {self.path} while this one was running.",
                "Give each of them a run_dir of its own; this command continues where it stopped.",
            )
        return (self.path / RESULTS).is_file()

    @classmethod
    def open(
        cls,
        path: str | Path,
        key: str,
        config_yaml: str,
        overwrite: bool = False,
        inputs: Sequence[str | Path] = (),
        wait: bool = True,
    ) -> RunFolder:
        """The folder at `path` for the run `key`, made where it is missing; if the run is there, it continues.

        Waits while another command works on the same run there. The folder's lock is held afterwards.

        Args:
            path: The run folder.
            key: Content key of the run.
            config_yaml: The composed configuration.
            overwrite: Delete the files of another run that lies there; files that no run wrote stay.
            inputs: Files and folders that the run reads.
            wait: Otherwise a command at work on the same run is an error.

        Raises:
            RunError: With nothing touched, where another run lies there (unless `overwrite`) or is at work there, where
                `overwrite` would empty a folder that an input lies in, where files lie there that belong to no run
                (always), and where nothing can be written.
        """
        path = Path(path).expanduser()
        _check(path, key, overwrite, inputs)
        lock = _locked(path, key, wait)
        try:
            held = _check(path, key, overwrite, inputs)  # what another command has done meanwhile
            if held not in (None, key):
                remove_own_files(path)
            if held != key:
                write_json(path / RUN, {"key": key})
            if held != key or not (path / CONFIG).is_file():
                # A process killed between the two left only the first.
                write_text(path / CONFIG, config_yaml)
        except BaseException:
            lock.release()
            raise
        return cls(path, key, lock)

    def release(self) -> None:
        """Let other commands have the folder."""
        if self.lock is not None:
            self.lock.release(force=True)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the folder within.

        Raises:
            RunError: Another run took it since it was released.
        """
        if self.lock is not None and not self.lock.is_locked:
            self.lock.acquire()
        try:
            _ = self.finished
            yield
        finally:
            self.release()

    def put_model(self, source: Path) -> None:
        """Copy a model folder to `model/` in place of the one that is there; files of the user's beside it stay."""
        target, partial = self.path / "model", self.path / "model.partial"
        with writing_to(target):
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source, partial)
            _move_into(partial, target, [p for p in own_files(self.path) if target in p.parents])


@contextmanager
def held(folder: str | Path, cure: str = "Give another run_dir.") -> Iterator[None]:
    """Within it no other command writes into `folder`, which is made where it is missing.

    Raises:
        RunError: Another command is at work there, or the folder cannot be written to.
    """
    path = Path(folder).expanduser()
    check_writable(path, cure=cure)
    lock = _locked(path, "", wait=False)
    try:
        yield
    finally:
        lock.release()


def copy_into(source: str | Path, target: str | Path, overwrite: bool = False) -> Path:
    """Copy a model folder to `target` and return that; a copy that is there already is left alone.

    `overwrite` replaces the files of an earlier copy, which `.dareu.json` in it names; other files are never deleted.

    Raises:
        RunError: `target` holds something else, or cannot be written.
    """
    source, target = Path(source), Path(target).expanduser()
    files = _digests(source)
    if target.is_dir() and any(target.iterdir()):
        if {name: digest for name, digest in _digests(target).items() if name != COPY} == files:
            return target
        if not (target / COPY).is_file():
            raise RunError(
                f"{target} holds files that are no copy of a model of this library's.",
                "Give another run_dir.",
            )
        if not overwrite:
            raise RunError(
                f"{target} already holds another model.",
                "Give another run_dir. (overwrite=true deletes that model's files.)",
            )
    check_writable(target)
    partial = target.parent / f".{target.name}.partial"
    with writing_to(target):
        if partial.is_dir():
            shutil.rmtree(partial)
        shutil.copytree(source, partial)
        write_json(partial / COPY, {"files": sorted(files)})
        old = read_json(target / COPY)["files"] if (target / COPY).is_file() else []
        _move_into(partial, target, [target / name for name in old])
    return target


def check_place(path: str | Path) -> None:
    """Check, before anything else is read, that a run may lie at `path`; which one lies there is seen later.

    Raises:
        RunError: Files lie there that belong to no run, or nothing can be written.
    """
    place = Path(path).expanduser()
    _held(place)
    check_writable(place)


def _check(path: Path, key: str, overwrite: bool, inputs: Sequence[str | Path]) -> str | None:
    """Key of the run that lies at `path`, None for none.

    Raises:
        RunError: The run `key` may not begin there.
    """
    held = _held(path)
    if held not in (None, key):
        if not overwrite:
            raise RunError(
                f"The run folder {path} already holds another run.",
                "Give another run_dir. (overwrite=true deletes that run's files.)",
            )
        check_inputs(path, inputs)
    check_writable(path)
    return held


def _locked(path: Path, key: str, wait: bool) -> FileLock:
    """The lock of the run folder, held; waits for a command that works on the same run there, and says so."""
    lock = FileLock(path / LOCK, thread_local=False)
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE if wait else 0)
        except Timeout:
            if not wait or _held(path) != key:
                raise RunError(
                    f"Another command is working in {path}.",
                    "Wait until it has ended, or give another run_dir.",
                ) from None
            note(f"Another process is working on this run in {path}; waiting for it.")
            lock.acquire()
    return lock


def _move_into(source: Path, target: Path, old: Sequence[Path]) -> None:
    """Give the folder `source` the name `target`; where that is there, its `old` files go and all others stay."""
    for path in old:
        path.unlink(missing_ok=True)
    if target.is_dir():
        for path in [p for p in sorted(source.rglob("*")) if p.is_file()]:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        shutil.rmtree(source)
    else:
        source.rename(target)


def _held(path: Path) -> str | None:
    """Key of the run that lies at `path`; None where nothing does."""
    if not path.is_dir():
        return None
    if (path / RUN).is_file():
        try:
            tree = read_json(path / RUN)
        except RunError:  # without it the folder would hold files, but no run
            tree = None
        key = tree.get("key") if isinstance(tree, dict) else None
        if not isinstance(key, str) or not re.fullmatch(r"\w+", key):
            raise RunError(
                f"The {RUN} in {path} is not that of a run of this library, or is damaged.",
                "Give another run_dir.",
            )
        return key
    if any(not p.name.endswith(HARMLESS) for p in path.iterdir()):
        raise RunError(
            f"The folder {path} holds files, but no run.", "Give another run_dir: an empty or a new folder."
        )
    return None


def _digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
