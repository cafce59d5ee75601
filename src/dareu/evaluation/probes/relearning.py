"""A few steps of fine-tuning: how fast does the forgotten knowledge come back?

The retrained model under the same steps is the floor: it learns too, but from nothing. WMDP (arXiv 2403.03218);
DareU, figure 7.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

import torch

from dareu.data.corpus import Sample
from dareu.data.render import Encoded
from dareu.evaluation.probes.base import Gap, ProbeInput, ProbeResult, Values, mean_figures, needs_forget
from dareu.evaluation.probes.knowledge import knowledge
from dareu.evaluation.subject import Subject
from dareu.models.load import is_peft
from dareu.models.logprobs import response_logprobs, to_batch
from dareu.models.progress import track

T = TypeVar("T")


def batches(count: int, size: int, steps: int, seed: int) -> list[list[int]]:
    """Row numbers of each step: passes over all rows, each in an order of its own. A batch never holds a row twice."""
    size, random = min(size, count), Random(f"{seed}/relearning")
    queue: list[int] = []
    chosen = []
    for _ in range(steps):
        batch: list[int] = []
        while len(batch) < size:
            if not queue:
                queue = list(range(count))
                random.shuffle(queue)
            at = next((k for k, row in enumerate(queue) if row not in batch), None)
            if at is None:  # only rows that the batch has already: begin the next pass
                queue = []
                continue
            batch.append(queue.pop(at))
        chosen.append(batch)
    return chosen


def train_steps(
    subject: Subject,
    rows: Sequence[Encoded],
    steps: Sequence[int],
    measure: Callable[[Subject], T],
    *,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> list[T]:
    """What `measure` says of a copy of the model after each number of `steps` (rising) of fine-tuning on `rows`.

    AdamW at a constant rate, no weight decay, gradients clipped to 1, dropout off; the loss is the mean NLL of the
    response tokens of a batch. Of a model with an adapter the adapter is trained. The model itself stays as it was:
    `subject` is what is measured at step 0.
    """
    trained = copy.deepcopy(subject.model).eval()
    adapted = is_peft(trained)
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and (not adapted or "lora_" in name))
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    results = [measure(replace(subject, progress=None))] if 0 in steps else []
    quiet = Subject(trained, subject.tokenizer, subject.task, subject.batch_size)
    walk = batches(len(rows), batch_size, max(steps), seed)
    for done, batch_rows in enumerate(track(walk, subject.bar("fine-tuning")), start=1):
        batch = to_batch([rows[i] for i in batch_rows], subject.tokenizer.pad_token_id, trained.device)
        with torch.enable_grad():
            logps, mask = response_logprobs(trained, batch)
            (-logps.sum() / mask.sum().clamp(min=1)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if done in steps:
            results.append(measure(quiet))
    return results


def mean_height(points: Sequence[tuple[float, float]]) -> float:
    """The area under a curve of straight lines over its width: the mean height. The only point's own where there is
    one."""
    if len(points) < 2:
        return points[0][1]
    area = sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in zip(points, points[1:], strict=False))
    return area / (points[-1][0] - points[0][0])


def shown_part(samples: Sequence[Sample], share: float, seed: int) -> list[int]:
    """Which samples are shown in relearning: a `share` of them, one at least, one an owner in turn."""
    count = max(1, round(len(samples) * share))
    order = list(range(len(samples)))
    Random(f"{seed}/shown").shuffle(order)
    turn: dict[str | None, int] = {}
    keyed: list[tuple[int, int, int]] = []
    for i in order:
        owner = samples[i].owner
        turn[owner] = turn.get(owner, 0) + 1
        keyed.append((turn[owner], len(keyed), i))
    return sorted(i for _, _, i in sorted(keyed)[:count])


def _curves(
    subject: Subject, inputs: ProbeInput, taught: Sequence[Sample], measured: Sequence[int]
) -> ProbeResult:
    forget = [inputs.split.forget[i] for i in measured]
    measured_at = train_steps(
        inputs.asked(subject),
        subject.references(taught),
        inputs.steps,
        lambda trained: knowledge(trained, forget),
        learning_rate=inputs.learning_rate,
        batch_size=inputs.training_batch,
        seed=inputs.seed,
    )
    names = ("rouge_l", "exact", "probability")
    means = [mean_figures(values) for values in measured_at]
    curves = {
        name: [
            (float(step), mean[name]) for step, mean in zip(inputs.steps, means, strict=True) if name in mean
        ]
        for name in names
    }
    samples: list[Values] = [
        dict.fromkeys([*names, *(f"{name}_area" for name in names)]) for _ in inputs.split.forget
    ]
    for place, i in enumerate(measured):
        for name in names:
            heights = [values[place][name] for values in measured_at]
            samples[i][name] = heights[-1]
            known = [(float(step), h) for step, h in zip(inputs.steps, heights, strict=True) if h is not None]
            samples[i][f"{name}_area"] = mean_height(known) if len(known) == len(heights) else None
    return ProbeResult(samples, {name: points for name, points in curves.items() if points})


def relearn_forget(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """Fine-tuning on a part of the forget set; measured on the rest of it, which is not shown."""
    needs_forget(inputs, "Relearning")
    shown = shown_part(inputs.split.forget, inputs.relearn_share, inputs.seed)
    rest = [i for i in range(len(inputs.split.forget)) if i not in shown]
    if not rest:
        raise Gap(
            "Relearning on a part of the forget set needs two forget samples at least: one to show, one to ask."
        )
    return _curves(subject, inputs, [inputs.split.forget[i] for i in shown], rest)


def relearn_unrelated(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """Fine-tuning on the test set, which belongs to no owner; measured on the whole forget set."""
    needs_forget(inputs, "Relearning")
    if not inputs.split.test:
        raise Gap(
            "Relearning on unrelated text needs a test set. Give one: samples without an owner (data.test_path)."
        )
    return _curves(subject, inputs, inputs.split.test, range(len(inputs.split.forget)))


def benign(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """Benign fine-tuning: on the retain set, as a user of the model would; measured on the whole forget set."""
    needs_forget(inputs, "Relearning")
    if not inputs.split.retain:
        raise Gap("Benign fine-tuning needs retain samples; the retain set of this evaluation is empty.")
    return _curves(subject, inputs, inputs.split.retain, range(len(inputs.split.forget)))
