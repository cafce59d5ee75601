"""DeMem (Kassem et al. 2023): PPO with a critic against likeness to the true answer.

The reward is `reward.kind: dissimilarity` (`rewards/registry.py`), paid at the last token; KL is in the reward.
"""

from dareu.methods.dareu import DareUStep
from dareu.methods.reinforcement import Reinforcement

METHOD = Reinforcement(DareUStep)
