"""PURGE (arXiv 2601.20568): GRPO with a reward for answers without any of the forget set's names and rare words.

The reward is `reward.kind: forbidden_words` (`rewards/forbidden_words.py`), in one of three forms (`reward.form`); KL
to the original is in the loss.
"""

from dareu.methods.dareu import DareUStep
from dareu.methods.reinforcement import Reinforcement

METHOD = Reinforcement(DareUStep)
