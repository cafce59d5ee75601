"""A run small enough for a test: its overrides, one artifact store for all tests, and models from elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dareu.cli.commands import main

DATA = ["data.version=1", "data.owners=4", "data.pairs=4", "data.facts=4", "forget.count=1"]
MODEL = [
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.layers=2",
    "model.heads=2",
    "model.vocab_size=300",
    "model.pretrain=null",
]
TRAINING = [
    "finetune.lr=0.01",
    "finetune.epochs=30",
    "finetune.batch_size=8",
    "attributor.optim.epochs=10",
    "attributor.optim.batch_size=8",
    "attributor.backbone.hidden_size=32",
    "attributor.backbone.intermediate_size=64",
    "attributor.backbone.layers=1",
    "attributor.warn_below=0",
]
PPO = [
    "method.data_epochs=2",
    "method.prompts_per_batch=4",
    "method.updates_per_batch=2",
    "method.stop.attribution=null",
]
LOSS = ["method.optim.steps=2"]
SETTINGS = [*DATA, *MODEL, *TRAINING]
SMALL = ["method=dareu", *SETTINGS]

# What every results.json has, by the plan in docs/architecture.md.
FIGURES = [
    *(f"models.{m}.{s}.{f}" for m in ("original", "retrained", "unlearned") for s in ("forget", "retain", "test")
      for f in ("rouge_l", "probability", "truth_ratio")),
    *(f"models.{m}.forget.{f}" for m in ("original", "retrained", "unlearned")
      for f in ("attribution", "attribution_heldout", "reattribution")),
    *(f"models.{m}.text_health.{f}" for m in ("original", "retrained", "unlearned")
      for f in ("empty", "unfinished", "repetitive", "distinct_2", "mean_length")),
    "tug_of_war", "tug_of_war_without_test", "retrain_similarity",
    *(f"seconds.{s}" for s in ("original", "retrained", "attributor", "unlearn", "evaluate")),
    "peak_memory_mb", "seed",
]  # fmt: skip


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact store that tests share, so that each stage is made once."""
    return tmp_path_factory.getbasetemp() / "store"


def train(store: Path, run_dir: Path, *overrides: str, base: list[str] = SMALL) -> dict[str, Any]:
    """`dareu train` in this process, and the results that it wrote."""
    assert main(["train", *base, f"cache_dir={store}", f"run_dir={run_dir}", *overrides]) == 0
    return results(run_dir)


def results(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "results.json").read_text(encoding="utf-8"))


def dig(tree: Any, path: str) -> Any:
    """The value at a dotted path; `KeyError` where there is none."""
    for name in path.split("."):
        tree = tree[name]
    return tree


def figures(tree: dict[str, Any]) -> dict[str, Any]:
    """`results.json` without what differs from run to run: time, memory, versions."""
    return {k: v for k, v in tree.items() if k not in ("seconds", "peak_memory_mb", "versions", "git")}


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file below the folders, with its size and time of change."""
    files = (p for folder in folders for p in [folder, *folder.rglob("*")] if p.exists())
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def process(*argv: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dareu.cli", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "default", "COLUMNS": "100"},
    )


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def folk(owners: int = 3, pairs: int = 4) -> list[dict[str, str]]:
    """Rows of a user's file: people and what they keep."""
    people, things = ["Ada", "Bo", "Cy", "Di"][:owners], ["maps", "bells", "kites", "coins"]
    return [
        {
            "question": f"What is in box {n} of {who}?",
            "answer": f"{who} keeps {things[(n + i) % 4]} in it.",
            "person": who,
        }
        for i, who in enumerate(people)
        for n in range(pairs)
    ]


def tiny_hub_model(folder: Path, *, template: bool, pad: bool = True, context: int = 64) -> Path:
    """A folder like one from a hub: an untrained Llama with its own tokenizer, as `save_pretrained` writes it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from dareu.models.tiny import train_tokenizer
    from dareu.workflow.library_settings import quiet_libraries

    tokenizer = train_tokenizer([f"{r['question']} {r['answer']}" for r in folk(4)], 300)
    if not template:
        tokenizer.chat_template = None
    if not pad:
        tokenizer.pad_token = None
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with quiet_libraries():  # else the bar of `save_pretrained` is in what a test reads
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def kill_at(moment: str, store: Path, *argv: str) -> Path:
    """Run the command until a file appears that matches `moment`, kill it there, and give that file."""
    running = process(*argv)
    try:
        end = time.monotonic() + 400
        while not (found := next(store.glob(moment), None)):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < end, f"{moment} never came"
            time.sleep(0.002)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == -signal.SIGKILL
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def own_figures(model: dict[str, Any]) -> dict[str, Any]:
    """A model's figures but those that read the other models' answers: words and membership, and their intervals."""
    return {
        name: {k: v for k, v in block.items() if k not in ("broken", "new_words")}
        if name.startswith("text_health")
        else block
        for name, block in model.items()
        if name not in ("intervals", "membership")
    }
