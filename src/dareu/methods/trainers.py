"""The trainers that a row of `METHODS` may name, in one visible dictionary."""

from __future__ import annotations

from dareu.methods.pdu import DualTrainer
from dareu.methods.rmu import HiddenTrainer
from dareu.methods.scrub import AlternatingTrainer
from dareu.training.loss_trainer import LossTrainer

TRAINERS: dict[str, type[LossTrainer]] = {
    "plain": LossTrainer,
    "hidden": HiddenTrainer,
    "dual": DualTrainer,
    "alternating": AlternatingTrainer,
}
