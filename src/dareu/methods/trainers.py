"""The trainers that a row of `METHODS` may name, in one visible dictionary."""

from __future__ import annotations

from dareu.methods.alternating import AlternatingTrainer
from dareu.methods.dual import DualTrainer
from dareu.methods.hidden import HiddenTrainer
from dareu.methods.loss_trainer import LossTrainer

TRAINERS: dict[str, type[LossTrainer]] = {
    "plain": LossTrainer,
    "hidden": HiddenTrainer,
    "dual": DualTrainer,
    "alternating": AlternatingTrainer,
}
