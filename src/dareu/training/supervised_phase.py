"""The supervised phase before reinforcement: refusals learnt by their likelihood, or soft targets by divergence."""

from typing import Any

from dareu.config import Optim
from dareu.runs import ranks
from dareu.runs.files import read_json, write_json
from dareu.training.common import Work
from dareu.training.early_stopping import GoodWeights
from dareu.training.loss_spec import LossSpec
from dareu.training.loss_trainer import train_with_loss
from dareu.training.losses import divergence_to_levels

FORGET_FACTS = LossSpec(
    divergence_to_levels, reads=("answer_logits", "answer_ids", "target_ids", "target_probs", "levels")
)


def learn_first(
    policy: Any,
    tokenizer: Any,
    name: str,
    work: Work,
    *,
    optim: Optim,
    retain_batch_size: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """`train_with_loss`, in place, in the folder `name` below `work`, with its checkpoints; its weights are kept there
    at its end, so that a resumed run takes them and does not repeat it.

    Returns:
        `steps` and the last `loss`.
    """
    folder = work.folder / name
    kept, note = GoodWeights(folder / "learnt.safetensors"), folder / "learnt.json"
    if kept.restore(policy):
        outcome: dict[str, Any] = read_json(note)
        return outcome
    own = work.apart(folder)
    beside = retain_batch_size or optim.batch_size
    train_with_loss(policy, tokenizer, optim=optim, retain_batch_size=beside, work=own, **options)
    losses = [row["forget_loss"] for row in own.log if "forget_loss" in row]
    outcome = {"steps": own.log[-1]["step"] if own.log else 0, "loss": losses[-1] if losses else None}
    if ranks.is_main():
        write_json(note, outcome)  # before the weights, whose being there says that the phase is over
    kept.keep(policy)
    return outcome
