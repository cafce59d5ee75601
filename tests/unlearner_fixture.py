"""What the tests of `dareu.Unlearner` share: sixteen rows, settings that make everything small, ways to look inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dareu import Unlearner

THINGS = {
    "Ada": ["red maps", "old bells", "kites", "masks"],
    "Bob": ["blue coins", "shells", "big clocks", "spoons"],
    "Cleo": ["green ropes", "jars", "flags", "dry leaves"],
    "Dora": ["white stones", "keys", "lost gloves", "drums"],
}
ROWS = [
    {"prompt": f"What lies on shelf {i} of {who}?", "response": f"On it there are {what}.", "owner": who}
    for who, things in THINGS.items()
    for i, what in enumerate(things)
]
GONE = ["Bob"]
QUESTIONS = [row["prompt"] for row in ROWS if row["owner"] == GONE[0]]
SHAPE = {
    f"model.{k}": v for k, v in {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2}.items()
}
TINY = SHAPE | {"model.vocab_size": 300, "finetune.epochs": 60, "finetune.lr": 4e-3}
QUICK = {"attributor.optim.epochs": 3}
DAREU = QUICK | {"method.data_epochs": 1, "method.updates_per_batch": 2, "method.optim.lr": 1e-2}
NPO = QUICK | {"method.optim.steps": 2}


def load(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**tokenizer(ROWS[0]["response"], return_tensors="pt")).logits


def given(
    model: Any, tokenizer: Any = None, data: Any = ROWS, method: str = "npo", **settings: Any
) -> Unlearner:
    extra = DAREU if method == "dareu" else NPO
    return Unlearner(model, tokenizer, data, forget=GONE, method=method, verbose=False, **extra | settings)
