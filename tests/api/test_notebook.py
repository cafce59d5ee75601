"""The notebook in `docs/`: it runs, it does what it says, and its committed outputs are its own and fit to publish."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from run_notebook import execute  # noqa: E402

NOTEBOOK = ROOT / "docs" / "unlearn_in_a_notebook.ipynb"
# Asked of the notebook's own variables, after its last cell.
QUESTION = "import json; print(json.dumps([results['models'], str(work.exists())]))"
PATHS = re.compile(r"/(?:tmp|work|home|root|Users|private|var|opt|mnt)\b|site-packages|[A-Z]:\\\\")


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[str]:
    """Every output as text, its mime types included."""
    return [json.dumps(o) for cell in notebook.cells for o in cell.get("outputs", [])]


def test_it_was_executed_from_top_to_bottom(committed: nbformat.NotebookNode) -> None:
    nbformat.validate(committed)
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(cells) >= 8 and not any("execution" in cell.metadata for cell in cells)
    assert len(outputs(committed)) >= 8 and not any('"output_type": "error"' in o for o in outputs(committed))


def test_its_outputs_are_small_and_name_no_machine(committed: nbformat.NotebookNode) -> None:
    assert NOTEBOOK.stat().st_size < 200 * 1024
    for output in outputs(committed):
        assert not PATHS.search(output), output
        assert "Warning" not in output, output
    assert PATHS.search('"/tmp/x"') and PATHS.search("lib/site-packages/tqdm") and not PATHS.search("</td>")


def test_it_explains_every_step(committed: nbformat.NotebookNode) -> None:
    kinds = [cell.cell_type for cell in committed.cells]
    assert kinds[0] == "markdown" and kinds.count("markdown") >= kinds.count("code") - 2


def test_it_runs_and_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(QUESTION))
    nbformat.write(notebook, tmp_path / "asked.ipynb")
    done = execute(tmp_path / "asked.ipynb")
    models, left = json.loads(done.cells[-1].outputs[0].text)
    assert left == "False"  # its scratch folder is gone
    assert models["original"]["forget"]["rouge_l"] > 0.9
    assert models["unlearned"]["forget"]["rouge_l"] < models["original"]["forget"]["rouge_l"] - 0.05
    assert models["unlearned"]["retain"]["rouge_l"] > 0.9
    heldout = {name: model["forget"]["attribution_heldout"] for name, model in models.items()}
    assert heldout["unlearned"] < 0.6 * heldout["original"]
    shown = "".join(outputs(done))
    assert "Tug-of-War" in shown and "<table" in shown
