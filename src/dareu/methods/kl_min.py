"""KL minimisation (Maini et al. 2024): ascent on the forget set, held to the original model on the retain set.

L = w_f · E_forget log π_θ(y|x) + w_r · E_retain KL(π_ref ‖ π_θ)
"""

from dareu.methods.gradient_ascent import gradient_ascent
from dareu.methods.loss_method import LossMethod

METHOD = LossMethod(gradient_ascent, retains=("kl",))
