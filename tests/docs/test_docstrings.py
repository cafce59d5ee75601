"""What a docstring says of errors stands under `Raises`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dareu

FILES = sorted(Path(dareu.__file__).parent.rglob("*.py"))
# A sentence, or a clause behind a semicolon, that begins with an error: "`DataError` where …".
IN_PROSE = re.compile(r"(?:^|[.;:]\s|\n\s*)`[A-Z]\w*Error`(?:\s|,|:)")


def docstrings(code: str) -> list[tuple[str, str]]:
    """(name, docstring) of the module and of all that it defines."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, nodes)]
    return [(getattr(node, "name", "module"), ast.get_docstring(node) or "") for node in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_errors_stand_under_raises(path: Path) -> None:
    told = docstrings(path.read_text(encoding="utf-8"))
    assert not [name for name, text in told if IN_PROSE.search(text.partition("Raises:")[0])]


def test_prose_is_found() -> None:
    assert len(FILES) > 250
    for text in (
        "`DataError` where it is empty.",
        "A path. `RunError` for none.",
        "One; `DataError`: missing.",
    ):
        (_, told), *_ = docstrings(f'def f():\n    """{text}"""')[1:]
        assert IN_PROSE.search(told)
    assert not IN_PROSE.search("A reason, as a `DataError` says it.")
