"""Runs at once on one artifact store: each stage is made once, and none harms another."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_fixture import LOSS, PPO, SMALL, figures, process, results, train


def test_processes_share_a_store(tmp_path: Path) -> None:
    """Two methods at once, and one of the commands given twice: the same stages, the same run folder."""
    store = tmp_path / "together"
    methods = {"dareu": ["method=dareu", *PPO], "npo": ["method=npo", *LOSS]}
    started = {**methods, "npo again": methods["npo"]}
    running = {
        name: process("train", *SMALL, *method, f"cache_dir={store}", f"run_dir={tmp_path / name.split()[0]}")
        for name, method in started.items()
    }
    told = {name: one.communicate(timeout=180) for name, one in running.items()}
    assert {name: one.returncode for name, one in running.items()} == dict.fromkeys(started, 0), told

    stages = ("base", "original", "retrained", "attributor", "unlearned", "evaluation")
    made = {stage: len(list((store / stage).glob("*/manifest.json"))) for stage in stages}
    assert made == {
        "base": 1,
        "original": 1,
        "retrained": 1,
        "attributor": 1,
        "unlearned": 2,
        "evaluation": 4,
    }
    for manifest in store.glob("*/*/manifest.json"):
        tree = json.loads(manifest.read_text())
        assert (tree["stage"], tree["key"]) == manifest.parts[-3:-1]
    assert not [p for left in (".out", ".work") for p in (store / left).rglob("*") if p.is_file()]
    # Two name each stage: one made it, one found it. The command given twice waits until its run folder is done.
    err = "".join(err for _, err in told.values())
    for stage in ("original model", "retrained model"):
        assert err.count(f"✓ {stage}") == 2 and err.count(f"✓ {stage} from the store") == 1
    assert told["npo"][0] == told["npo again"][0]  # the same table
    assert (
        results(tmp_path / "dareu")["models"]["original"] == results(tmp_path / "npo")["models"]["original"]
    )

    alone = train(tmp_path / "alone", tmp_path / "again", *methods["npo"])
    assert figures(alone) == figures(results(tmp_path / "npo"))
