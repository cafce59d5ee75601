"""Gradient difference (Liu et al. 2022; Maini et al. 2024): ascent on the forget set, descent on the retain set.

L = w_f · E_forget log π_θ(y|x) − w_r · E_retain log π_θ(y|x)
"""

from dareu.methods.gradient_ascent import gradient_ascent
from dareu.methods.loss_method import LossMethod

METHOD = LossMethod(gradient_ascent, retains=("nll",))
