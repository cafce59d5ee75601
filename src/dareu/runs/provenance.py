"""Hashes of what a run read and left: the forgotten records and the files of the models, for a deletion record."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dareu.errors import RunError
from dareu.runs.integrity import checksum

FILE = "provenance.json"
# What decides what a model writes: weights, configuration, tokenizer.
SUFFIXES = (".safetensors", ".json", ".model", ".jinja", ".txt")


def model_hashes(folder: Path) -> dict[str, str]:
    """File name → SHA-256 of each file of a model folder that decides what the model writes."""
    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in SUFFIXES
    }


def record_hash(salt: str, prompt: str, response: str, owner: str) -> str:
    """SHA-256 over the salt and the record as JSON. Without the salt a guessed record cannot be tested."""
    text = json.dumps([salt, owner, prompt, response], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(hashes: Iterable[str]) -> str:
    """One SHA-256 over hashes, whatever their order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def provenance(
    records: Iterable[tuple[str, str, str]], models: Mapping[str, Path], salt: str | None = None
) -> dict[str, Any]:
    """`records` are (prompt, response, owner) of the forget set, `models` name → folder. Holds no text."""
    salt = salt or secrets.token_hex(16)
    hashes = [record_hash(salt, *record) for record in records]
    return {
        "salt": salt,
        "records": {"count": len(hashes), "digest": digest(hashes), "hashes": hashes},
        "models": {name: model_hashes(folder) for name, folder in models.items()},
    }


def read_provenance(run: Path) -> dict[str, Any]:
    """`provenance.json` of a run folder.

    Raises:
        RunError: There is none, or it cannot be read.
    """
    path = run / FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if not _is_whole(tree):
            raise ValueError("keys are missing")
    except FileNotFoundError:
        raise RunError(
            f"There is no {FILE} in {run}.",
            "Give the folder of a finished `dareu train` run; runs of older versions have none: run it again.",
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.", "Run it again into another run_dir.") from None
    return tree  # type: ignore[no-any-return]


def _is_whole(tree: Any) -> bool:
    """Whether it has the form that `provenance` gives."""
    if not isinstance(tree, dict) or not isinstance(tree.get("salt"), str):
        return False
    records, models = tree.get("records"), tree.get("models")
    if not isinstance(records, dict) or not {"count", "digest", "hashes"} <= records.keys():
        return False
    return isinstance(models, dict) and all(isinstance(files, dict) for files in models.values())
