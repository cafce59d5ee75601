"""What a result was made from and what it took: content keys, versions, git revision, time and memory."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from dareu.errors import RunError
from dareu.runs.integrity import checksum

PACKAGES = ("dareu", "torch", "transformers", "trl", "peft", "datasets", "accelerate")
KEY_LENGTH = 16


def content_key(tree: Any) -> str:
    """16 hex digits of the SHA-256 over `tree` as canonical JSON: equal trees have equal keys.

    The order of keys does not count, nor whether a sequence is a list or a tuple, nor whether a whole number
    is written 16 or 16.0; every other float counts to its last digit. Files are no part of it: a path says
    nothing about what lies there, so a `Path` is a `TypeError` (put `file_digest` into the tree instead).
    """
    text = json.dumps(_canonical(tree), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _canonical(obj: Any) -> Any:
    if isinstance(obj, BaseModel):
        return _canonical(obj.model_dump())
    if isinstance(obj, Mapping):
        return {str(key): _canonical(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_canonical(value) for value in obj]
    if isinstance(obj, float) and obj.is_integer() and abs(obj) < 2**53:
        return int(obj)  # a default of 16 and a YAML's 16.0 are one setting
    if obj is None or isinstance(obj, str | bool | int | float):
        return obj
    raise TypeError(f"a content key cannot be made from {type(obj).__name__}")


def file_digest(path: str | Path) -> str:
    """16 hex digits of the SHA-256 over a file's bytes.

    Raises:
        RunError: It cannot be read.
    """
    try:
        return checksum(Path(path))[:KEY_LENGTH]
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror}.", "Check the file's name and its rights."
        ) from None


def versions() -> dict[str, str | None]:
    """Python and the packages that figures depend on, none of them imported; None for a missing one."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed


def git_revision(package: Path | None = None) -> str | None:
    """Commit of the checkout that holds `package` (default: dareu's own code), with "-dirty" after changes.

    None for an installed package, even where the environment lies inside some other project's checkout.
    """
    package = package or Path(__file__).resolve().parents[1]
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    revision = _git(package, "rev-parse", "HEAD")
    return f"{revision}-dirty" if revision and _git(package, "status", "--porcelain", "-uno") else revision


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def reset_peak_memory() -> None:
    """From here on `peak_memory_mb` counts anew, where the system lets it (Linux); elsewhere nothing changes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MiB; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)  # bytes there, KiB elsewhere


@dataclass(frozen=True)
class Manifest:
    """What stands in an artifact's `manifest.json`; `seconds` and `peak_memory_mb` cover every attempt."""

    stage: str
    key: str
    config: dict[str, Any]
    versions: dict[str, str | None]
    git: str | None
    seed: int | None
    seconds: float
    peak_memory_mb: float
    extra: dict[str, Any] = field(default_factory=dict)
    # Path below the artifact → (size, SHA-256).
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_json` gave.

        Raises:
            RunError: `tree` is none.
        """
        try:
            peak = tree["peak_memory_mb"]
            filled = {**tree, "peak_memory_mb": math.nan if peak is None else peak}
            return TypeAdapter(cls).validate_python(filled)
        except (KeyError, TypeError, ValidationError):
            raise RunError(
                "A manifest.json lacks keys, or holds what they cannot be.",
                "The same command makes the artifact again.",
            ) from None
