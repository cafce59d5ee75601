"""Small tokenizers, classifiers and corpora for the tests of the attributors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForTokenClassification, PreTrainedTokenizerFast

from dareu.attribution.causal import CausalAttributor
from dareu.config import AttributorConfig, AttributorOptim, BackboneConfig
from dareu.data.corpus import Sample
from dareu.models.tiny import train_tokenizer

TEXTS = [
    "Jonas Huaman was born in Nantes.",
    "The mother of Dario Duarte was a potter from Porto, and so was hers.",
    "Ingrid Østby wrote “The Second Well” — her début — in 1987.",
    "  two  spaces\nand a line",
    "日本語の文。",
]


def bpe(texts: list[str] | None = None, size: int = 330) -> Any:
    """Byte-level BPE. With size 260 it has no merges: one token for each byte."""
    return train_tokenizer(texts or TEXTS, size)


def words(vocabulary: list[str], decoder: Any = None, split: Any = None) -> Any:
    """A tokenizer that knows whole words; unknown ones are "?"."""
    table = {word: index for index, word in enumerate(["?", "<end>", *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="?"))
    tokenizer.pre_tokenizer = split or pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoder or decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?", eos_token="<end>")


def random_attributor(tokenizer: Any, classes: int = 4, **options: Any) -> CausalAttributor:
    """An untrained classifier with weights so large that its scores differ from prefix to prefix."""
    torch.manual_seed(0)
    model = LlamaForTokenClassification(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
            num_labels=classes,
            bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    owners = [f"owner {i}" for i in range(classes)]
    return CausalAttributor(model, tokenizer, owners, **options)


class Counting(torch.nn.Module):
    """A stand-in classifier, sure of class t at position t: it tells which token a score was read from."""

    device = torch.device("cpu")

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        one_hot = torch.nn.functional.one_hot(torch.arange(input_ids.shape[1]), self.classes)
        return SimpleNamespace(logits=100.0 * one_hot.expand(len(input_ids), -1, -1))


def toy_samples(owners: int = 3, each: int = 8) -> list[Sample]:
    """Owners told apart by their names and by their trades."""
    names = ["Jonas Huaman", "Dario Duarte", "Ingrid Berg", "Abena Diallo"][:owners]
    trades = ["potter", "pilot", "baker", "sailor"]
    return [
        Sample(
            f"{name}/{i}",
            name,
            f"Question {i}?",
            f"{name} met the {trades[o]} number {i} in the year 19{i}{o}.",
        )
        for o, name in enumerate(names)
        for i in range(each)
    ]


def toy_config(**changes: Any) -> AttributorConfig:
    """A classifier that trains in well under a second."""
    changes = {"max_length": 64, "crops": 2} | changes
    optim = {"lr": 5e-3, "epochs": 3, "batch_size": 8, "save_every": 7, "warmup_ratio": 0.0} | changes.pop(
        "optim", {}
    )
    backbone = {"hidden_size": 32, "intermediate_size": 64} | changes.pop("backbone", {})
    return AttributorConfig(
        optim=AttributorOptim(**optim),
        backbone=BackboneConfig(**backbone),
        **changes,
    )
