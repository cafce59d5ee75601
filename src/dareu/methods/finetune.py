"""Fine-tuning on the retain set alone, in the hope that the forget set fades. A baseline of most papers.

L = −E_retain log π_θ(y|x)
"""

from dareu.methods.loss_method import LossMethod
from dareu.training.losses import nll

METHOD = LossMethod(nll, walks="retain")
