"""Checkpoints that are whole: marked when all their files are written, and checked before a run continues from them."""

import json
from pathlib import Path

from dareu.errors import note
from dareu.runs import ranks
from dareu.runs.files import write_json
from dareu.runs.integrity import damage, file_table, flush_to_disk

COMPLETE = "complete"  # a checkpoint's table of files; it is written last


def mark_complete(checkpoint: Path) -> None:
    """Call it once every file of the checkpoint is written, in all processes: each of them writes its own files."""
    ranks.barrier()
    if ranks.is_main():
        flush_to_disk(checkpoint)
        write_json(checkpoint / COMPLETE, file_table(checkpoint, "crc32", leave_out=(COMPLETE,)))


def resume_point(folder: Path) -> Path | None:
    """`last_checkpoint` as process 0 sees it, for all processes."""
    return ranks.on_main(lambda: last_checkpoint(folder))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest `checkpoint-<step>` that was written to its end and whose files are as they were written.

    A damaged one is announced and passed over.
    """
    complete = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE).is_file()]
    for path in sorted(complete, key=lambda p: int(p.name.split("-")[1]), reverse=True):
        wrong = _damage(path)
        if wrong is None:
            return path
        note(f"{path} is damaged ({wrong}); using an older checkpoint.")
    return None


def _damage(checkpoint: Path) -> str | None:
    try:
        return damage(checkpoint, json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")), "crc32")
    except (OSError, ValueError, AttributeError, TypeError):
        return f"the file {COMPLETE} cannot be read"
