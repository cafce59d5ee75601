"""Two runs at once on one artifact store: each stage is made once, and neither harms the other."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_fixture import LOSS, PPO, SMALL, figures, process, results, train


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    store = tmp_path / "together"
    methods = {"dareu": ["method=dareu", *PPO], "npo": ["method=npo", *LOSS]}
    running = {
        name: process("train", *SMALL, *method, f"cache_dir={store}", f"run_dir={tmp_path / name}")
        for name, method in methods.items()
    }
    told = {name: one.communicate(timeout=180) for name, one in running.items()}
    assert {name: one.returncode for name, one in running.items()} == {"dareu": 0, "npo": 0}, told

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
    # Both name each stage; one of them made it and the other found it, after waiting for it where need be.
    err = told["dareu"][1] + told["npo"][1]
    for stage in ("original model", "retrained model"):
        assert err.count(f"✓ {stage}") == 2 and err.count(f"✓ {stage} from the store") == 1
    assert (
        results(tmp_path / "dareu")["models"]["original"] == results(tmp_path / "npo")["models"]["original"]
    )

    alone = train(tmp_path / "alone", tmp_path / "again", *methods["npo"])
    assert figures(alone) == figures(results(tmp_path / "npo"))
