"""Whether a folder still holds the files that were written into it.

Sizes, and the checksums of small files, at every read; those of large files on demand.
"""

import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Kind = Literal["sha256", "crc32"]
BLOCK = 1 << 20
SMALL = 8 << 20  # bytes: figures, records and configurations; the weights of a usual model are larger


def checksum(path: Path, kind: Kind = "sha256") -> str:
    """Of a file's bytes: 64 hex digits of SHA-256, or 8 of CRC-32, which is several times faster."""
    state, crc = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            if kind == "sha256":
                state.update(block)
            else:
                crc = zlib.crc32(block, crc)
    return state.hexdigest() if kind == "sha256" else f"{crc:08x}"


def file_table(
    folder: Path, kind: Kind = "sha256", leave_out: tuple[str, ...] = ()
) -> dict[str, tuple[int, str]]:
    """Path below `folder` → (size in bytes, checksum), for every file but those named in `leave_out`."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, checksum(path, kind))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in leave_out
    }


def damage(folder: Path, table: Mapping[str, Any], kind: Kind | None = None) -> str | None:
    """What differs from `table`, in a few words; None where nothing does.

    Sizes are compared, of files up to `SMALL` bytes checksums too, with `kind` those of all files.
    """
    for name, (size, expected) in table.items():
        path = folder / name
        try:
            now = path.stat().st_size
        except OSError:
            return f"{name} is missing"
        if now != size:
            return f"{name} has {now} of {size} bytes"
        small: Kind | None = None if size > SMALL else "crc32" if len(expected) == 8 else "sha256"
        try:
            changed = (how := kind or small) and checksum(path, how) != expected
        except OSError as error:  # a bad sector; another process is making it again
            return f"{name} cannot be read: {error.strerror or error}"
        if changed:
            return f"{name} has other bytes than were written"
    return None


def flush_to_disk(folder: Path) -> None:
    """Have the system write a folder's files, and its list of files, to disk before continuing."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:  # folders cannot be opened on every system
            continue
        try:
            os.fsync(handle)
        except OSError:
            pass
        finally:
            os.close(handle)
