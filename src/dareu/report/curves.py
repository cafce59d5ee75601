"""Training curves: which names of the log are drawn, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dareu.report import drawing as svg
from dareu.report.figures import number, show_any

# Known names of the training log, in the order shown, with what they say.
CURVES = {
    "reward": ("Reward", "per token, KL term and guards included"),
    "reward_forget": ("Reward, forget prompts", "without KL term and guards"),
    "reward_retain": ("Reward, retain prompts", "without KL term and guards"),
    "silent_groups": ("Silent groups", "of rollouts that all earn the same"),
    "rollout_attribution": ("Attribution of rollouts", "by the classifier that gives the reward"),
    "attribution": ("Attribution of rollouts", "by the classifier that gives the reward"),
    "stop_attribution": ("Attribution for stopping", "of rollouts, by an attributor that gives no reward"),
    "saturated_share": ("Saturated share", "of tokens whose reward is at its floor"),
    "kl_old": ("KL to the old policy", "nats a token"),
    "kl_original": ("KL to the original", "nats a token"),
    "kl_loss": ("KL to the original in the loss", "nats a token"),
    "distillation": ("Distillation loss", "KL on retain data"),
    "distill": ("Distillation loss", "KL on retain data"),
    "value_loss": ("Value loss", "of the critic"),
    "explained_variance": ("Explained variance", "of the returns by the critic; 1 is best"),
    "entropy": ("Entropy", "nats a token"),
    "clip_fraction": ("Clip fraction", "of tokens outside the trust region"),
    "response_length": ("Response length", "tokens"),
    "empty_share": ("Empty share", "of rollouts"),
    "unfinished_share": ("Unfinished share", "of rollouts"),
    "stop_repetitive": ("Repetitive share", "of rollouts"),
    "stop_nobody": ("Nobody's share", "rollouts that the classifier takes for broken text"),
    "loss": ("Loss", "the whole objective"),
    "forget_loss": ("Forget loss", ""),
    "retain_loss": ("Retain loss", ""),
}
# Counters and timers of training engines say nothing about unlearning; three of the stopping rules' numbers are drawn
# under another name already.
IGNORED = {
    "step",
    "epoch",
    "total_flos",
    "num_tokens",
    "step_time",
    "stop_empty",
    "stop_unfinished",
    "stop_kl",
}


def curves(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a logged name with at least one finite value; known names first, engine counters left out."""
    names = dict.fromkeys(k for row in log for k in row if k not in IGNORED and "/" not in k)
    found = []
    for name in [*(k for k in CURVES if k in names), *(k for k in names if k not in CURVES)]:
        numbers = [(number(row.get("step", i)), number(row.get(name))) for i, row in enumerate(log, 1)]
        points = [(s, v) for s, v in numbers if s is not None and v is not None]
        if not points:
            continue
        steps, values = [s for s, _ in points], [v for _, v in points]
        title, note = CURVES.get(name, (name.replace("_", " "), ""))
        found.append(
            {
                "name": name,
                "title": title,
                "note": note,
                "known": name in CURVES,
                "drawing": svg.curve(steps, values),
                "first": show_any(values[0]),
                "last": show_any(values[-1]),
                "low": show_any(min(values)),
                "high": show_any(max(values)),
                "steps": (f"{steps[0]:g}", f"{steps[-1]:g}"),
                "points": json.dumps([[s, show_any(v)] for s, v in points]),
            }
        )
    return found
