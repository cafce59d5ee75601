"""The critic: a causal backbone with a value head that starts at zero."""

import inspect
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from dareu.config import BackboneConfig
from dareu.models.seeds import seeded
from dareu.models.tiny import llama_shape
from dareu.training.tensors import save_tensors


class Critic(nn.Module):
    """V(c_t) for the contexts c_t = (q, y[:t]) of a response, in units of discounted reward.

    The backbone may come from the attribution classifier; the head starts at zero, so that the first advantages
    are the returns themselves.
    """

    def __init__(self, backbone: nn.Module, hidden_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        embedding = getattr(backbone, "get_input_embeddings", lambda: None)()
        self.known = int(embedding.weight.shape[0]) if embedding is not None else 0
        self.takes_positions = "position_ids" in inspect.signature(backbone.forward).parameters
        self.head = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, response_length: int) -> Tensor:
        """Values (B, T) for a response of T = `response_length` tokens at the end of `input_ids` (B, P+T).

        Entry t is read one position earlier, where token t has not been seen yet.
        """
        options: dict[str, Tensor] = {}
        if self.known:  # an engine of its own may sample an id of a padded vocabulary, which no token has
            input_ids = input_ids.clamp(max=self.known - 1)
        if self.takes_positions:  # counted from the first real token, else left pads would change the values
            options["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        hidden: Any = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, **options
        ).last_hidden_state
        start = input_ids.size(1) - response_length - 1
        return self.head(hidden[:, start:-1].float()).squeeze(-1)

    def optimizer_group(self, lr: float) -> dict[str, Any]:
        """Its parameters as the optimizer takes them beside the policy's."""
        return {"params": list(self.parameters()), "lr": lr, "weight_decay": 0.0}

    def share_gradients(self, accelerator: Any) -> None:
        """The mean over processes: the critic stands outside the DDP wrapper."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")

    def save(self, folder: Path) -> None:
        save_tensors(folder / "critic.safetensors", self.state_dict())

    def restore(self, folder: Path) -> None:
        self.load_state_dict(load_file(folder / "critic.safetensors"))


def fresh_critic(sizes: BackboneConfig, vocab_size: int, seed: int) -> Critic:
    """A small Llama critic on the policy's vocabulary, for classifiers that read other tokens."""
    from transformers import LlamaModel

    with seeded(seed):
        backbone = LlamaModel(llama_shape(sizes, vocab_size, 4096))
    return Critic(backbone, sizes.hidden_size)
