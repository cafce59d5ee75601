"""RULE (Zhang et al. 2025, arXiv 2506.07171): learn to refuse forget prompts and to answer those beside them.

First a supervised phase on refusals, then GRPO with `reward.kind: refusal` (`rewards/refusal.py`) on forget
prompts and on retain prompts, half of which are those nearest to a forget prompt.
"""

from dareu.methods.dareu import DareUStep
from dareu.methods.reinforcement import Reinforcement

METHOD = Reinforcement(DareUStep)
