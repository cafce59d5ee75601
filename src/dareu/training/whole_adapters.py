"""A run under adapters goes on from the weights of its checkpoint."""

from pathlib import Path
from typing import Any

from dareu.models.files import ADAPTER
from dareu.models.load import POLICY, is_peft


class WholeAdapters:
    """Of a Trainer: a checkpoint's adapters are read, all of them, and what is frozen stays so.

    transformers 5.20, the last release for Python 3.10, reads a checkpoint that also holds the frozen original's
    adapter without the policy's own, which lies in the folder itself: a resumed run would begin with the original's
    weights and the later state of the optimizer.
    """

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        model = model or self.model
        trained = [(p, p.requires_grad) for p in model.parameters()]
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        folder = Path(resume_from_checkpoint)
        if is_peft(model) and (folder / ADAPTER).is_file() and any(folder.glob(f"*/{ADAPTER}")):
            model.load_adapter(str(folder), POLICY, is_trainable=True)
            model.set_adapter(POLICY)
        for parameter, flag in trained:  # loading an adapter unfreezes the whole of it
            parameter.requires_grad_(flag)
