"""Commands in the README and the how-tos compose, parse, or are targets that exist; links between pages resolve."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from dareu import Unlearner
from dareu.cli.commands import COMMANDS, parser
from dareu.config.compose import compose
from dareu.tuning.options import read

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
LINKED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[list[str]]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    inline = [
        c for c in re.findall(r"`(make [^`]*|dareu [^`]*)`", TEXT) if "…" not in c and "FOLDER" not in c
    ]
    return [shlex.split(line, comments=True) for line in [*lines, *inline] if line.strip()]


DAREU = [c[1:] for c in commands() if c[0] == "dareu" and len(c) > 2]
MENTIONED = {c[1] for c in commands() if c[0] == "dareu"}
MAKE = [c[1:] for c in commands() if c[0] == "make"]


def test_counts() -> None:
    assert len(DAREU) >= 7 and len(MAKE) >= 3  # the extraction still finds them


@pytest.mark.parametrize("command", DAREU, ids=" ".join)
def test_dareu_command(command: list[str]) -> None:
    args = parser().parse_args(command)
    assert args.command in command
    overrides = getattr(args, "overrides", [])
    if args.command == "tune":
        tuning = read(overrides)
        overrides = [*tuning.overrides, f"method={tuning.tune.methods[0]}"]
    # A sweep's commas make several runs; each of them has to compose.
    first = [o.partition(",")[0] if getattr(args, "multirun", False) else o for o in overrides]
    config = compose(first)
    for override in first:
        if override.startswith("method="):
            assert config.method.name == override.removeprefix("method=")


def test_commands_that_are_mentioned_exist() -> None:
    assert COMMANDS.keys() >= MENTIONED and "receipt" in MENTIONED


@pytest.mark.parametrize("command", MAKE, ids=" ".join)
def test_make_target(command: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target, *variables = command
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for variable in variables:
        assert re.search(rf"^{variable.partition('=')[0]} \?=", makefile, re.MULTILINE)


def test_python_block() -> None:
    (block,) = blocks("python")
    tree = ast.parse(block)
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "unlearner"
    }
    assert called == {"fit", "evaluate", "generate", "save_pretrained"}
    assert all(callable(getattr(Unlearner, name)) for name in called)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    links = re.findall(r'(?:\]\(|src="|href=")([^)"\s]+)', page.read_text(encoding="utf-8"))
    for target in links:
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_each_method_has_its_page() -> None:
    shown = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"index"}
    configured = {path.stem for path in (ROOT / "configs" / "method").glob("*.yaml")}
    variants = {name for name in configured if name.startswith("dareu_")}
    assert configured - variants <= shown


NAMES = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|yaml|json|j2|css))`")
OF_A_RUN = {"model/", "logs/", "samples/"}  # folders of a run
HISTORY = {
    ROOT / "docs" / "dev" / "log.md",
    *(ROOT / "docs" / "results").glob("*.md"),
}  # say what was, at the time


@pytest.mark.parametrize(
    "page", [p for p in LINKED if p not in HISTORY], ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_named_in_the_docs_exist(page: Path) -> None:
    for name in NAMES.findall(page.read_text(encoding="utf-8")):
        places = (ROOT / name, ROOT / "src" / "dareu" / name, ROOT / "src" / "dareu" / "data" / name)
        assert name.startswith("my_") or any(place.is_file() for place in places), name


def test_the_architecture_names_files_and_rooms_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(NAMES.findall(text)) > 30
    for room in re.findall(r"`([a-z_]+(?:/[a-z_]+)*/)`", text):
        assert any((base / room).is_dir() for base in (ROOT, ROOT / "src" / "dareu")) or room in OF_A_RUN, (
            room
        )
