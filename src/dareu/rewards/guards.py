"""Guards: reward terms that keep the policy from answering with nothing, without end, or with broken text.

All are (B, T), ≤ 0 (fluency is a log-likelihood), and 0 outside the mask.
"""

import torch
from torch import Tensor


def last_token(mask: Tensor) -> Tensor:
    """1 at the last token of each response, (B, T); a row without tokens has none."""
    mask = mask.long()
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask * (1 - following)


def unfinished_penalty(mask: Tensor, finished: Tensor) -> Tensor:
    """−1 at the last token of a response that did not end by itself. `finished` is (B,) bool."""
    return -(last_token(mask) * (~finished).long().unsqueeze(1)).float()


def empty_penalty(mask: Tensor, empty: Tensor) -> Tensor:
    """−1 at the last token of a response without a word. `empty` is (B,) bool."""
    return -(last_token(mask) * empty.long().unsqueeze(1)).float()


def repetition_penalty(ids: Tensor, mask: Tensor, n: int = 4) -> Tensor:
    """−1 at each token that closes an n-gram seen before in the same response, (B, T)."""
    penalty = torch.zeros_like(mask, dtype=torch.float32)
    for row in range(ids.size(0)):
        tokens = ids[row][mask[row].bool()].tolist()
        seen: set[tuple[int, ...]] = set()
        for end in range(n, len(tokens) + 1):
            gram = tuple(tokens[end - n : end])
            if gram in seen:
                penalty[row, end - 1] = -1.0
            seen.add(gram)
    return penalty


def fluency(reference_logps: Tensor, mask: Tensor, clip: float = 5.0) -> Tensor:
    """max(log p_base(y_t | …), −clip) / clip: each token's log-likelihood under a frozen model, in [−1, 0]."""
    return reference_logps.clamp(min=-clip, max=0.0) / clip * mask
