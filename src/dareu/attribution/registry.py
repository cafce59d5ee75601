"""The attributors by the `kind` in their folder's `attributor.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dareu.attribution.base import Attributor
from dareu.attribution.causal import CausalAttributor
from dareu.attribution.lexical import LexicalAttributor
from dareu.errors import ModelError, nearest

ATTRIBUTORS: dict[str, Any] = {
    CausalAttributor.kind: CausalAttributor,
    LexicalAttributor.kind: LexicalAttributor,
}


def load_attributor(folder: Path, device: str = "cpu") -> Attributor:
    """The attributor that `save` wrote into `folder`; `ModelError` where there is none that is known."""
    path = Path(folder) / "attributor.json"
    if not path.is_file():
        raise ModelError(
            f"There is no attributor in {folder}: attributor.json is missing.", "Train one first."
        )
    kind = json.loads(path.read_text(encoding="utf-8"))["kind"]
    if kind not in ATTRIBUTORS:
        raise ModelError(f"{path} names the unknown kind '{kind}'.", nearest(kind, ATTRIBUTORS))
    loaded: Attributor = ATTRIBUTORS[kind].load(Path(folder), device=device)
    return loaded
