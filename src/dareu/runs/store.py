"""The artifact store: `root/<stage>/<key>/`, one folder for each finished stage, named by what went into it.

A stage is built in `root/.out`, keeps what the next attempt continues from in `root/.work`, and appears under
its name by one rename, manifest included: what a killed process leaves never looks whole. A lock per stage
and key makes a second process wait and then find the artifact done. The system drops a lock with its process,
so that the empty files in `root/.locks` that stay behind block no process.

Where several processes are one run (`runs.ranks`), process 0 looks, locks and writes; the others write into a folder
that is thrown away, and read what process 0 has written.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from dareu.errors import RunError, note
from dareu.runs import ranks
from dareu.runs.files import check_writable, read_json, write_json, writing_to
from dareu.runs.integrity import damage, file_table, flush_to_disk
from dareu.runs.manifest import Manifest, git_revision, peak_memory_mb, versions

MANIFEST = "manifest.json"
ELAPSED = "elapsed.json"
REMINDER = 60.0  # seconds between two further words
PATIENCE = 2.0  # seconds of waiting for another process before a word about it


class Building:
    """One stage being built, or found finished.

    `path` is where the artifact lies once it is done. Until then: `out` is an empty folder to write it into,
    `work` one that survives the process, for checkpoints. `resumed`: an earlier attempt left work behind.
    """

    def __init__(self, root: Path, stage: str, key: str, config: dict[str, Any], seed: int | None) -> None:
        self.stage, self.key = stage, key
        self.path = root / stage / key
        self.out = root / ".out" / stage / key
        self.work = root / ".work" / stage / key
        self.resumed = False
        self._whole = self._announced = self._opened = False
        self._config, self._seed = config, seed
        self._before, self._peak, self._start = 0.0, 0.0, time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether the artifact is there and whole. One that is not is announced, and is to be made again."""
        return ranks.on_main(self._is_done)

    def _is_done(self) -> bool:
        if (self.path / MANIFEST).is_file() and not self._whole:
            wrong = artifact_damage(self.path)
            if wrong:
                if not self._announced:
                    note(f"{self.path} is damaged ({wrong}); it is made again.")
                self._announced = True
                return False
            self._whole = True
        return (self.path / MANIFEST).is_file()

    @property
    def manifest(self) -> Manifest:
        """The finished artifact's manifest.

        Raises:
            RunError: It is not finished.
        """
        return Manifest.from_json(read_json(self.path / MANIFEST))

    def tick(self) -> None:
        """Note the time spent so far; called at each checkpoint.

        An interrupted attempt counts up to its last tick: what it did after that is lost and done again.
        """
        if ranks.is_main():
            write_json(
                self.work / ELAPSED, {"seconds": self._seconds(), "peak_memory_mb": self._peak_memory()}
            )

    def finish(self, **extra: Any) -> None:
        """Write the manifest, give `out` its final name and drop `work`. `extra` goes into the manifest."""
        ranks.on_main(lambda: self._finish(extra))

    def _finish(self, extra: dict[str, Any]) -> None:
        manifest = Manifest(
            stage=self.stage,
            key=self.key,
            config=self._config,
            versions=versions(),
            git=git_revision(),
            seed=self._seed,
            seconds=self._seconds(),
            peak_memory_mb=self._peak_memory(),
            extra=extra,
            files=file_table(self.out),
        )
        write_json(self.out / MANIFEST, manifest.to_json())
        with writing_to(self.path):
            flush_to_disk(self.out)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove(self.path)  # without a manifest, or damaged: no artifact
            self.out.rename(self.path)
        shutil.rmtree(self.work, ignore_errors=True)  # the next run that finds the artifact does it, too

    def _open(self) -> None:
        """Fresh `out`, the `work` of earlier attempts."""
        self.resumed = ranks.on_main(self._make_folders)
        if not ranks.is_main():
            self.out = Path(tempfile.mkdtemp(prefix="dareu-"))
        self._opened = True
        self._start = time.perf_counter()

    def _make_folders(self) -> bool:
        with writing_to(self.out):
            resumed = self.work.is_dir() and any(self.work.iterdir())
            self.work.mkdir(parents=True, exist_ok=True)
            _remove(self.out)
            self.out.mkdir(parents=True)
        if (self.work / ELAPSED).is_file():
            try:
                spent = read_json(self.work / ELAPSED)
                self._before, self._peak = float(spent["seconds"]), float(spent["peak_memory_mb"] or 0.0)
            # Cut off: the time of earlier attempts is lost.
            except (RunError, KeyError, TypeError, ValueError):
                self._before, self._peak = 0.0, 0.0
        return resumed

    def _seconds(self) -> float:
        return self._before + time.perf_counter() - self._start

    def _peak_memory(self) -> float:
        return max(peak_memory_mb(), self._peak)  # in this order NaN stays NaN


class ArtifactStore:
    """Finished stages under `root`, shared by all processes there.

    `root` defaults to `$DAREU_CACHE_DIR`, and without that to the cache folder of the user.
    """

    def __init__(self, root: Path | None = None) -> None:
        chosen = root or os.environ.get("DAREU_CACHE_DIR") or user_cache_dir("dareu")
        self.root = Path(chosen).expanduser().absolute()

    def check_writable(self) -> None:
        """Check that artifacts can be written, before a run begins. Writes nothing.

        Raises:
            RunError: They cannot.
        """
        check_writable(self.root, "The artifact store", "Set cache_dir to a folder that you may write to.")

    def find(self, stage: str, key: str) -> Path | None:
        """The finished artifact's folder, or None."""
        path = self.root / stage / key
        whole = ranks.on_main(lambda: (path / MANIFEST).is_file() and artifact_damage(path) is None)
        return path if whole else None

    def artifacts(self) -> list[Path]:
        """The folders of all finished artifacts, damaged ones included."""
        return sorted(path.parent for path in self.root.glob(f"[!.]*/*/{MANIFEST}"))

    @contextmanager
    def building(
        self, stage: str, key: str, config: dict[str, Any] | None = None, seed: int | None = None
    ) -> Iterator[Building]:
        """Build `stage` with key `key`, unless it is done: look at `.done` first, call `.finish()` last.

        Waits while another process builds the same. Left without `finish`, by an error or not, `work` stays
        for the next attempt and `out` goes. A finished artifact is read without a lock.

        Raises:
            RunError: The store cannot be written to.
        """
        build = Building(self.root, stage, key, config or {}, seed)
        if build.done:
            shutil.rmtree(build.work, ignore_errors=True)  # of a process killed after the rename
            yield build
            return
        locks: list[FileLock] = []
        ranks.on_main(lambda: locks.append(self.lock(stage, key)))
        try:
            if not build.done:  # the process waited for may have built it
                build._open()
            yield build
        finally:
            if build._opened or ranks.is_main():
                _remove(build.out)
            for lock in locks:
                lock.release()

    def lock(self, stage: str, key: str) -> FileLock:
        """Held by this process until it is released; waits for another that holds it, and says so."""
        path = self.root / ".locks" / f"{stage}-{key}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            pause = PATIENCE
            while not lock.is_locked:
                try:
                    lock.acquire(timeout=pause)
                except Timeout:
                    note(f"{_holder(path)} is building this {stage} ({key}); waiting for it.")
                    pause = REMINDER
            path.with_suffix(".pid").write_text(str(os.getpid()), encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"The artifact store {self.root} cannot be written: {error.strerror or error}.",
                "Set cache_dir to a folder that you may write to.",
            ) from None
        return lock


def artifact_damage(path: Path, checksums: bool = False) -> str | None:
    """What is wrong with the artifact in `path`, in a few words; None where it is whole.

    File sizes are compared with the manifest's, with `checksums` their SHA-256 too. Artifacts of versions before 0.2
    have no table of files; of these the manifest alone is looked at.
    """
    try:
        manifest = Manifest.from_json(read_json(path / MANIFEST))
    except RunError:
        return f"{MANIFEST} cannot be read"
    return damage(path, manifest.files, "sha256" if checksums else None)


def _holder(lock: Path) -> str:
    """Who holds a lock, and whether that process is stopped, as far as this system tells."""
    try:
        pid = int(lock.with_suffix(".pid").read_text(encoding="utf-8"))
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return "another process"
    stopped = f", which is stopped (`kill -CONT {pid}` lets it go on, `kill {pid}` ends it)"
    return f"process {pid}{stopped if state in 'Tt' else ''}"


def _remove(folder: Path) -> None:
    """The folder, or what lies in its place: a file, or a link, whose target stays."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    elif os.path.lexists(folder):
        folder.unlink()
