"""What rollouts are held near instead of the original model: what that model says of people who do not exist."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dareu.data.corpus import Sample, Task
from dareu.data.render import response_text
from dareu.errors import DataError
from dareu.models.counterfactual import Positions, counterfactual_pair, distributions, teacher
from dareu.rewards.base import Rollouts


@dataclass(frozen=True)
class CounterfactualAnchor:
    """The original model's distributions at rollouts, with a fictitious name in place of the owner's.

    Attributes:
        fakes: Forget owner → (name in the texts, fictitious names), as `methods.counterfactual.fakes_for` gives it.
        max_length: Tokens of a prompt and its response at most.
        batch_size: Rows of a forward pass.
    """

    tokenizer: Any
    fakes: Mapping[str, tuple[str, list[str]]]
    task: Task
    max_length: int
    batch_size: int

    def __call__(self, original: Any, rollouts: Rollouts, frozen: Tensor) -> Tensor:
        """Logits (N, V) at the N response tokens of the rollouts, row after row.

        `frozen` (N, V) are the original's own. They stay on retain prompts, at tokens of a name, for owners without
        fictitious names, and for rollouts whose text is cut into other tokens than were sampled or is too long with the
        other name.
        """
        out = frozen.float().clone()
        starts = [0, *rollouts.mask.sum(1).cumsum(0).tolist()]
        lead = response_text(self.tokenizer, "", self.task)
        work = []
        for i, prompt in enumerate(rollouts.prompts):
            name, others = self.fakes.get(prompt.owner, ("", []))
            if prompt.kind != "forget" or not others:
                continue
            ids = rollouts.ids[i][rollouts.mask[i].bool()].cpu()
            text = rollouts.texts[i].removeprefix(lead)
            sample = Sample(id="", owner=prompt.owner, prompt=prompt.query, response=text)
            try:
                pair = counterfactual_pair(self.tokenizer, sample, name, others, self.task, self.max_length)
            except DataError:
                continue
            if pair.row.response_ids[: len(ids)] == ids.tolist():
                work.append((slice(starts[i], starts[i + 1]), ids, pair))
        rows = [copy for _, _, pair in work for copy in pair.copies]
        originals = iter(distributions(original, self.tokenizer, rows, self.batch_size))
        for place, ids, pair in work:
            copies = [next(originals) for _ in pair.copies]
            aligned = [Positions(p.of[: len(ids)], p.named[: len(ids)]) for p in pair.aligned]
            own = frozen[place].float().softmax(-1).cpu()
            mixed = teacher(own, copies, aligned, ids, True).probs
            out[place] = mixed.clamp(min=torch.finfo(mixed.dtype).tiny).log().to(out.device)
        return out
