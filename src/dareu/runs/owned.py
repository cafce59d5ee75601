"""Which files of a run folder are a run's own. Nothing else in it is ever deleted.

A file that a run writes under a new name gets its pattern here; a test runs a command and looks for files without one.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dareu.errors import RunError
from dareu.runs.files import read_json, writing_to

RUN = "run.json"
LOCK = ".lock"  # held by the command that works in the folder; never deleted, since another may wait for it

# Paths below a run folder, with / between their parts.
_RUN_FILES = (
    r"run\.json",
    r"\.lock",
    r"config\.yaml",
    r"results\.json",
    r"failure\.json",
    r"run\.log",
    r"training\.jsonl",
    r"report\.html",
    r"provenance\.json",
    r"receipt\.(json|md)",
    r"(samples|rounds/\d+/samples)/[\w.-]+\.jsonl",
    r"rounds/\d+/training\.jsonl",
    r"logs/(.+/)?events\.out\.tfevents\.[^/]+",
    r"logs/(.+/)?wandb/.+",
    r"logs/tracked\.jsonl",
    # A model and its tokenizer as transformers and peft save them.
    r"model(\.partial)?/(adapter_)?model(-\d+-of-\d+)?\.safetensors",
    r"model(\.partial)?/((adapter_|generation_|tokenizer_|processor_|preprocessor_)?config|tokenizer|dareu_base"
    r"|special_tokens_map|added_tokens|vocab|chat_template|tekken|(adapter_)?model\.safetensors\.index)\.json",
    r"model(\.partial)?/[\w.-]+\.(jinja|model|tiktoken)",
    r"model(\.partial)?/(merges\.txt|vocab\.txt|README\.md|additional_chat_templates/[\w.-]+\.jinja)",
)
_TUNING_FILES = (
    r"tune\.log",
    r"study\.journal(\.lock)?",
    r"trials\.(csv|jsonl)",
    r"chosen\.yaml",
    r"leaderboard\.(md|csv)",
    r"trials/.+\.json",
    r"jobs/.+",
)
_PARTIAL = r"(.+/)?\.[^/]+\.\d+\.tmp"  # of a writer that was killed
_OWN = re.compile(
    "|".join((*_RUN_FILES, *_TUNING_FILES, *(rf"runs/[^/]+/{p}" for p in _RUN_FILES), _PARTIAL))
)

# Folders that a run makes; an empty one of the user's stays.
_OWN_FOLDER = re.compile(
    r"(runs/[^/]+/)?(samples|rounds|logs|model|model\.partial)(/.+)?|(trials|jobs)(/.+)?|runs(/[^/]+)?"
)


def own_files(folder: Path) -> list[Path]:
    """The files below a run folder that a run wrote; links are not followed."""
    return [path for path in _files(folder) if _is_own(path, folder)]


def remove_own_files(folder: Path) -> None:
    """Delete a run's own files and the folders that this leaves empty; all others stay.

    `run.json` goes last, so that a removal that was killed can be done again.

    Raises:
        RunError: A file cannot be deleted.
    """
    with writing_to(folder):
        for path in sorted(own_files(folder), key=lambda p: p == folder / RUN):
            if path != folder / LOCK:
                path.unlink()
        for above, _, _ in os.walk(folder, topdown=False):
            if _OWN_FOLDER.fullmatch(Path(above).relative_to(folder).as_posix()) and not os.listdir(above):
                Path(above).rmdir()


def check_inputs(folder: Path, inputs: Sequence[str | Path]) -> None:
    """Check that none of `inputs`, which the run is about to read, lies inside the folder to be emptied.

    Raises:
        RunError: One does.
    """
    inside = folder.resolve()
    for given in inputs:
        for read in (given, *_leads_to(Path(given).expanduser())):
            path = Path(read).expanduser().resolve()
            if path.exists() and (path == inside or inside in path.parents):
                raise RunError(
                    f"The run folder {folder} is not overwritten: this run reads {read}, which lies in it.",
                    "Give another run_dir.",
                )


def _leads_to(folder: Path) -> Iterator[Path]:
    """What is read beside a folder itself: where links in it lead, and the base that an adapter in it names."""
    seen: set[Path] = set()
    while folder.is_dir() and folder not in seen:  # two adapters may name each other
        seen.add(folder)
        yield from (entry for entry in folder.iterdir() if entry.is_symlink())
        try:
            tree = read_json(folder / "adapter_config.json")
        except RunError:
            return
        base = tree.get("base_model_name_or_path") if isinstance(tree, dict) else None
        if not isinstance(base, str):
            return
        folder = Path(base)
        yield folder


def _files(folder: Path) -> Iterator[Path]:
    for above, _, names in os.walk(folder):
        yield from (Path(above) / name for name in sorted(names))


def _is_own(path: Path, folder: Path) -> bool:
    return not path.is_symlink() and _OWN.fullmatch(path.relative_to(folder).as_posix()) is not None
