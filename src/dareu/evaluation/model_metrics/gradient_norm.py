"""The norm of the loss's gradient on one sample, a membership score: small for what was learnt by heart."""

from collections.abc import Sequence

import torch

from dareu.data.render import Encoded
from dareu.evaluation.subject import Subject
from dareu.models.logprobs import response_logprobs, to_batch
from dareu.models.progress import track
from dareu.runs.ranks import share_out


def gradient_norms(subject: Subject, pairs: Sequence[Encoded]) -> list[float]:
    """‖∇_θ NLL‖₂ of each pair over all parameters, in the order given, ≥ 0; NLL a mean over response tokens.

    Weights in 4 or 8 bits have no gradient and do not count. A backward pass a sample. Members have lower norms, so the
    membership score is its negative. Parameters and their gradients are left as they were. Source:
    Wang et al. 2024 (arXiv 2402.17012).
    """
    model = subject.model
    was_training, wanted = model.training, {p: p.requires_grad for p in model.parameters()}
    model.eval()
    parameters = [p for p in wanted if p.is_floating_point()]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)

        def norm(pair: Encoded) -> float:
            batch = to_batch([pair], subject.tokenizer.pad_token_id, model.device)
            logps, mask = response_logprobs(model, batch)
            loss = -logps.sum() / mask.sum().clamp(min=1)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            squares = [g.float().pow(2).sum() for g in gradients if g is not None]
            return float(torch.stack(squares).sum().sqrt())

        return share_out(pairs, norm, lambda own: track(own, subject.bar("gradients")))
    finally:
        for parameter, flag in wanted.items():
            parameter.requires_grad_(flag)
        model.train(was_training)
