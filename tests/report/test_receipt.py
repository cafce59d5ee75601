"""The deletion record: hashes and figures, no text, and a check that notices every change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from report_fixture import make_results, sample_rows, write_run
from safetensors.numpy import save_file

from dareu.cli.commands import main
from dareu.errors import RunError
from dareu.report.receipt import to_markdown, verify_receipt, write_receipt
from dareu.runs.folder import RunFolder
from dareu.runs.provenance import FILE, digest, provenance, record_hash
from dareu.workflow.figures import Figures
from dareu.workflow.results import broken_model
from dareu.workflow.results import write_run as finish
from dareu.workflow.stages import Artifact


def make_run(folder: Path) -> Path:
    results = make_results()
    results["knowledge_left"] = {
        "exact": {"value": 0.3, "low": 0.1, "high": 0.5},
        "rouge": {"value": 0.02, "low": -0.1, "high": 0.1},
    }
    results["knowledge_left_worst"] = {"metric": "exact", "value": 0.3}
    run = write_run(folder, results)
    (run / "model").mkdir()
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    (run / "model" / "config.json").write_text("{}")
    original = folder.parent / "original"
    original.mkdir()
    (original / "model.safetensors").write_bytes(b"others")
    records = [
        (r["prompt"], r["reference"], r["owner"]) for r in sample_rows("unlearned") if r["set"] == "forget"
    ]
    kept = provenance(records, {"original": original, "unlearned": run / "model"})
    (run / FILE).write_text(json.dumps(kept))
    return run


def test_figures_of_some_samples_are_not_called_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    assert results["models"]["unlearned"]["forget"]["truth_ratio"] == 0.6
    results["missing"] = {
        "unlearned.forget.truth_ratio": "one has none",
        "unlearned.forget.depth": "1 of 9 samples",
    }
    (run / "results.json").write_text(json.dumps(results))
    text = write_receipt(run).read_text()
    assert "Computed without some of the samples: unlearned.forget.truth\\_ratio: one has none" in text
    assert "Not computed: unlearned.forget.depth: 1 of 9 samples" in text and text.count("omputed") == 2


def test_hashes_by_hand() -> None:
    text = json.dumps(["s", "Ada", "q", "ä"], ensure_ascii=False)
    assert record_hash("s", "q", "ä", "Ada") == hashlib.sha256(text.encode()).hexdigest()
    assert digest(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest() == digest(["a", "b"])


def test_the_record_says_what_was_done_and_holds_no_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    text = write_receipt(run).read_text()
    record = json.loads((run / "receipt.json").read_text())
    assert (
        record["request"]["owners"] == ["Jonas Huaman", "Dario Duarte"] and record["request"]["records"] == 9
    )
    assert record["done"]["model_before"] == {"model.safetensors": hashlib.sha256(b"others").hexdigest()}
    assert record["done"]["model_after"]["model.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    assert "record_hashes" not in record["request"] and "salt" not in json.dumps(record)
    assert (
        "Exact answers .30 (.10 to .50)" in text
        and "no difference seen" in text
        and "Not computed" not in text
    )
    for row in sample_rows("unlearned"):
        if row["set"] == "forget":
            assert row["reference"] not in text and row["reference"] not in json.dumps(record)
    assert (
        len(
            json.loads((write_receipt(run, records=True).parent / "receipt.json").read_text())["request"][
                "record_hashes"
            ]
        )
        == 9
    )


def test_verification_notices_each_change(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"receipt\.json"):
        verify_receipt(run)
    write_receipt(run)
    assert verify_receipt(run) == []
    for path, change, said in (
        (run / "model" / "model.safetensors", b"weightz", "model/model.safetensors has changed."),
        (run / "config.yaml", b"seed: 1", "config.yaml has changed."),
        (run / "model" / "extra.json", b"{}", "model/extra.json is new."),
    ):
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(change)
        assert verify_receipt(run) == [said]
        path.unlink() if before is None else path.write_bytes(before)
    (run / "model" / "config.json").unlink()
    assert verify_receipt(run) == ["model/config.json is missing."]
    (run / "model" / "config.json").write_text("{}")
    samples = run / "samples" / "unlearned.jsonl"
    samples.write_text(samples.read_text().replace("Cusco", "Lima"))
    assert verify_receipt(run) == [
        "samples/unlearned.jsonl has changed.",
        "The records in samples/ are not those of the request.",
    ]


@pytest.mark.parametrize("name", ["results.json", "samples/retrained.jsonl", "report.html"])
def test_verification_covers_what_was_measured(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run")
    (run / "report.html").write_text("page")
    write_receipt(run)
    assert verify_receipt(run) == []
    before = (run / name).read_text()
    (run / name).write_text(before.replace("0.971", "1.0") + " ")
    assert verify_receipt(run) == [f"{name} has changed."]
    (run / name).unlink()
    if name == "results.json":
        return
    assert verify_receipt(run) == [f"{name} is missing."]


def test_markup_in_names_does_not_act(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_receipt(run)
    record = json.loads((run / "receipt.json").read_text())
    record["request"]["owners"] = ["<b>*x*</b>\x1b[31m"]
    record["request"]["also_stays"] = {
        "count": 1,
        "word_for_word": 1,
        "pairs": [{"forget": "f0", "retain": "r_1"}],
    }
    text = to_markdown(record)
    assert r"\<b\>\*x\*\</b\> \[31m" in text
    assert "\n- 1 of these records, 1 of them word for word" in text and "f0 = r\\_1\n" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not the folder of a finished run: it has no results.json"):
        write_receipt(tmp_path)


def test_a_folder_without_hashes_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"provenance\.json"):
        write_receipt(run)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["receipt", str(run)]) == 0 and "receipt.md" in capsys.readouterr().out
    assert main(["receipt", str(run), "--verify"]) == 0 and "agrees" in capsys.readouterr().out
    assert main(["receipt", str(run), "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"agrees": True, "changed": []}
    assert main(["receipt", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1
    (run / "model" / "config.json").write_text("[]")
    assert main(["receipt", str(run), "--verify"]) == 1
    assert "model/config.json has changed." in capsys.readouterr().out
    assert main(["receipt", str(tmp_path / "absent")]) == 2


def test_a_file_of_the_users_beside_the_model_is_not_the_runs(tmp_path: Path) -> None:
    """It may go again; a run that took it for its own wrote its model anew at every call then."""
    made = tmp_path / "made"
    (made / "model").mkdir(parents=True)
    (made / "training.jsonl").write_text("")
    (made / "model" / "config.json").write_text("{}")
    save_file({"a": np.zeros(2, np.float32)}, made / "model" / "model.safetensors")
    notes = tmp_path / "run" / "model" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    artifact = Artifact(made, "key", 1.0, 1.0, {}, made / "model")
    finish(RunFolder(tmp_path / "run", "key"), make_results(), artifact, Figures({}, {}, {}, {}, 1.0))
    assert broken_model(tmp_path / "run") is None
    notes.unlink()
    assert broken_model(tmp_path / "run") is None
    (tmp_path / "run" / "model" / "config.json").unlink()
    assert "config.json is missing" in str(broken_model(tmp_path / "run"))
