"""A small model with a tokenizer for the tests of `dareu.models`: random, but far from flat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dareu.config import TinyConfig
from dareu.models.load import load_model
from dareu.models.tiny import make_tiny

TEXTS = ["Who wrote the second well?", "The second well was written by Jonas Huaman, a potter from Nantes."]
PROMPTS = ["Who", "Who wrote the second well?", "a potter", "the second well was", "by"]
SMALL = TinyConfig(hidden_size=32, intermediate_size=64, layers=2, heads=2, vocab_size=300, max_length=64)


def loud(model: Any, seed: int = 0) -> Any:
    """The model with weights so large that its distributions are peaked and differ from place to place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def make_folder(folder: Path) -> Path:
    """A saved base model and its tokenizer."""
    make_tiny(SMALL, TEXTS, 0, folder)
    model, _ = load_model(folder)
    loud(model).save_pretrained(folder)
    return folder


def inputs(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """Input ids and attention mask, padded on the left."""
    return dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False))
