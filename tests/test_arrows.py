"""The table "Rooms" in docs/architecture.md, held over every import, those inside functions included."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dareu

PACKAGE = Path(dareu.__file__).parent
BASE = {"errors", "config", "runs"}
ROOMS = {"data", "models", "attribution", "rewards", "training", "methods", "evaluation", "report"}
FACES = {"workflow", "tuning", "cli", "api", "__main__"}
TRL = {"training/rl_trainer.py"}  # the only file that may import it

# Room → names it must not import: other rooms, or packages. No room imports what wires rooms together.
FORBIDDEN = {
    **dict.fromkeys(BASE, ROOMS | FACES | {"torch"}),
    "data": (ROOMS - {"data"}) | FACES | {"runs", "peft"},
    "models": {"attribution", "rewards", "training", "methods", "evaluation", "report"} | FACES,
    "attribution": {"rewards", "training", "methods", "evaluation", "report"} | FACES,
    "rewards": {"training", "methods", "evaluation", "report"} | FACES,
    "training": {"attribution", "methods", "evaluation", "report", "hydra", "omegaconf"} | FACES,
    "methods": {"report", "hydra", "omegaconf"} | FACES,  # of evaluation it reads what measures a text
    "evaluation": {"rewards", "training", "methods", "report"} | FACES,
    "report": (ROOMS - {"report"}) | FACES | {"torch"},
    "workflow": {"tuning", "cli", "api", "__main__"},
    "tuning": {"cli", "api", "__main__"},
    "cli": (ROOMS - {"report"}) | {"api", "torch", "__main__"},
    "api": (ROOMS - {"report"}) | BASE - {"errors", "config"} | {"cli", "torch", "__main__"},
    "moved": {"torch"},
    "__main__": ROOMS | FACES - {"cli", "__main__"} | BASE,
}
# What the report may read of rooms beside it: what metrics are, intervals, how results are typed; which texts hold a
# name. None loads torch.
READ_BY_REPORT = (
    "dareu.data.owner_names",
    "dareu.evaluation.metrics.base",
    "dareu.evaluation.metrics.intervals",
    "dareu.evaluation.metrics.registry",
    "dareu.evaluation.results",
)
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything imported; `from a import b` gives `a.b`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(names: Iterator[str]) -> set[str]:
    """The room for a name of this package, the top-level package for any other."""
    parts = (name.split(".") for name in names)
    return {p[1] if p[0] == "dareu" and len(p) > 1 else p[0] for p in parts}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    name = path.relative_to(PACKAGE)
    names = list(imports(ast.parse(path.read_text(encoding="utf-8"))))
    if name.parts[0] == "report":
        names = [n for n in names if not n.startswith(READ_BY_REPORT)]
    found = rooms(iter(names))
    assert not found & FORBIDDEN[name.parts[0].removesuffix(".py")]
    assert "trl" not in found or name.as_posix() in TRL


def needed() -> dict[str, set[str]]:
    """Each module of the package → the modules that it imports anywhere, inside functions and for types too."""
    names = {".".join(("dareu", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        listed = imports(ast.parse(path.read_text(encoding="utf-8")))
        modules = (one if one in names else one.rpartition(".")[0] for one in listed)
        found[name] = {module for module in modules if module in names and module != name}
    return found


def cycle(graph: dict[str, set[str]]) -> tuple[str, ...]:
    """Modules that need one another in a circle; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return tuple(error.args[1])
    return ()


def test_no_module_needs_itself_by_way_of_others() -> None:
    """Within a room either: a late import, or one for types alone, hides no circle."""
    graph = needed()
    assert len(graph) == len(FILES) and sum(map(len, graph.values())) > 1000
    assert not cycle(graph)
    assert "dareu.workflow.experiment" in graph["dareu.cli.runs"]  # inside a function
    closed = graph | {"dareu.models.files": {*graph["dareu.models.files"], "dareu.models.load"}}
    assert {"dareu.models.files", "dareu.models.load"} <= set(cycle(closed))


def test_an_import_inside_a_function_counts() -> None:
    code = (
        "def f():\n    import trl.models\n    from dareu import report\n    from dareu.data.corpus import x"
    )
    assert rooms(imports(ast.parse(code))) == {"trl", "report", "data"}
    assert len(FILES) > 40 and (PACKAGE / "training" / "rl_trainer.py") in FILES


@pytest.mark.parametrize("module", ["dareu", "dareu.cli", *READ_BY_REPORT, "dareu.report.page"])
def test_importing_a_face_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'trl'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
