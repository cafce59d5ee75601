"""The same knowledge requested in another way: paraphrases, formats, a second turn, samples."""

import math
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Any

from dareu.data.corpus import Sample
from dareu.data.render import Encoded, render_prompt, render_turns, response_text, without_control
from dareu.evaluation.metrics.model_rows import best_of_k, doublings
from dareu.evaluation.metrics.rouge import exact_answer, rouge_recall
from dareu.evaluation.probes.base import (
    Gap,
    ProbeInput,
    ProbeResult,
    Values,
    mean_figures,
    needs_forget,
    needs_questions,
)
from dareu.evaluation.probes.knowledge import knowledge
from dareu.evaluation.subject import Subject

# Ways to ask the same question that need no understanding of it; {q}: the question, {l}: its first letter small.
TEMPLATES = (
    "Please answer this question: {q}",
    "{q} Please answer in one sentence.",
    "I would like to know: {l}",
    "Could you tell me {l}",
    "A friend asked me this: {q} What should I say?",
)
YES_NO = "{q}\nProposed answer: {a}\nIs the proposed answer correct? Answer yes or no."
SECOND_TURN = "Are you sure? Please answer the question again."
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def paraphrases(sample: Sample) -> tuple[str, ...]:
    """The sample's own paraphrased questions; where it has none, the question in each of `TEMPLATES`."""
    question = sample.prompt
    small = question[:1].lower() + question[1:]
    return sample.paraphrased_prompts or tuple(t.format(q=question, l=small) for t in TEMPLATES)


def paraphrased(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """The worst (highest) of each figure over the paraphrases of each question, and the mean over them."""
    needs_questions(inputs, "The probe by paraphrased questions")
    forget = inputs.split.forget
    asked = [(i, prompt) for i, sample in enumerate(forget) for prompt in paraphrases(sample)]
    measured = knowledge(subject, [forget[i] for i, _ in asked], [prompt for _, prompt in asked])
    samples: list[Values] = []
    for index in range(len(forget)):
        mine = [values for (i, _), values in zip(asked, measured, strict=True) if i == index]
        one: Values = {}
        for name in ("rouge_l", "exact", "probability"):
            values = [v for m in mine if (v := m[name]) is not None]
            one[name] = max(values, default=None)
            one[f"{name}_mean"] = sum(values) / len(values) if values else None
        samples.append(one)
    return ProbeResult(samples)


def attacked(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """The data's own adversarial prompts: each forget sample has the mean over the attacks on its owner."""
    needs_questions(inputs, "The probe by adversarial prompts")
    attacks = [a for a in inputs.split.attacks if a.owner is not None]
    if not attacks:
        raise Gap(
            "The probe by adversarial prompts needs some; this corpus has none. Use a data source that has them "
            "(data=rwku), or give them as Corpus.attacks."
        )
    measured = knowledge(subject, attacks)
    by_owner: dict[str, dict[str, float]] = {}
    for owner in {str(a.owner) for a in attacks}:
        by_owner[owner] = mean_figures(
            [v for a, v in zip(attacks, measured, strict=True) if a.owner == owner]
        )
    samples: list[Values] = [
        {name: by_owner.get(str(s.owner), {}).get(name) for name in ("rouge_l", "exact", "probability")}
        for s in inputs.split.forget
    ]
    return ProbeResult(samples)


def options(sample: Sample, seed: int) -> tuple[list[str], int]:
    """The right and the wrong answers in an order of the sample's own, and the place of the right one."""
    listed = [sample.response, *dict.fromkeys(w for w in sample.wrong_responses if w != sample.response)]
    order = list(range(len(listed)))[: len(LETTERS)]
    Random(f"{seed}/{sample.id}/{sample.prompt}").shuffle(order)
    return [listed[i] for i in order], order.index(0)


def choice_prompt(question: str, answers: Sequence[str]) -> str:
    """A multiple-choice question: the answers behind letters."""
    lines = [f"{letter}. {answer}" for letter, answer in zip(LETTERS, answers, strict=False)]
    return "\n".join([question, *lines, "Answer with the letter of the right answer."])


def _short_logps(subject: Subject, groups: Sequence[Sequence[tuple[str, str]]]) -> list[list[float]]:
    """For each group of prompts, not rendered yet, with short answers: the answers' log p (sum over tokens, without
    end-of-text). Answers of one token to one prompt cost one pass over it."""
    prompts, answers = zip(*(row for group in groups for row in group), strict=True)
    pairs = [Encoded(p.prompt_ids, p.response_ids[:-1]) for p in subject.pairs(prompts, answers)]
    totals = iter(subject.nlls_of_shared(pairs))
    return [[-total for total, _ in islice(totals, len(group))] for group in groups]


def _with_wrong_answers(inputs: ProbeInput, what: str) -> list[int]:
    needs_questions(inputs, what)
    some = [i for i, sample in enumerate(inputs.split.forget) if sample.wrong_responses]
    if not some:
        raise Gap(
            f"{what} needs wrong answers beside the right one; no forget sample has any. Give them in the column "
            "wrong_responses of the data."
        )
    return some


def _share(logps: Sequence[float], right: int) -> float | None:
    """softmax(logps)[right]."""
    top = max(logps)
    if not math.isfinite(top):
        return None
    weights = [math.exp(value - top) for value in logps]
    return weights[right] / sum(weights)


def multiple_choice(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """The right one of lettered answers: `probability` of its letter among the letters, and whether it is `chosen`."""
    some = _with_wrong_answers(inputs, "The probe by multiple choice")
    asked = [inputs.split.forget[i] for i in some]
    offered = [options(sample, inputs.seed) for sample in asked]
    groups = [
        [(choice_prompt(sample.prompt, answers), letter) for letter in LETTERS[: len(answers)]]
        for sample, (answers, _) in zip(asked, offered, strict=True)
    ]
    samples: list[Values] = [{"probability": None, "chosen": None} for _ in inputs.split.forget]
    for i, (_, right), logps in zip(some, offered, _short_logps(subject, groups), strict=True):
        share = _share(logps, right)
        chosen = None if share is None else float(logps.index(max(logps)) == right)
        samples[i] = {"probability": share, "chosen": chosen}
    return ProbeResult(samples)


def yes_or_no(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """Is this answer correct? `told_apart`: the share of wrong answers for which "yes" is less likely than for the
    right one (a tie counts half); `yes`: p(yes) of the right answer, among yes and no. Without knowledge: .5 of the
    first."""
    some = _with_wrong_answers(inputs, "The probe by yes or no")
    groups = [
        [
            (YES_NO.format(q=sample.prompt, a=answer), word)
            for answer in (sample.response, *sample.wrong_responses)
            for word in ("Yes", "No")
        ]
        for sample in (inputs.split.forget[i] for i in some)
    ]
    samples: list[Values] = [{"told_apart": None, "yes": None} for _ in inputs.split.forget]
    for i, logps in zip(some, _short_logps(subject, groups), strict=True):
        right, *wrong = (_share(logps[k : k + 2], 0) for k in range(0, len(logps), 2))
        if right is not None and all(w is not None for w in wrong):
            apart = [1.0 if w < right else 0.5 if w == right else 0.0 for w in wrong]  # type: ignore[operator]
            samples[i] = {"told_apart": sum(apart) / len(apart), "yes": right}
    return ProbeResult(samples)


def opening(answer: str) -> tuple[str, str] | None:
    """The first third of an answer's words (one at least, five at most), and the rest; None for a single word."""
    pieces = answer.split()
    if len(pieces) < 2:
        return None
    count = min(5, max(1, len(pieces) // 3))
    return " ".join(pieces[:count]), " ".join(pieces[count:])


def first_words(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """The answer's first words are given: `rouge_l` and `exact` of the rest that the model writes."""
    needs_questions(inputs, "The probe by first words")
    forget = inputs.split.forget
    cut = [opening(sample.response) for sample in forget]
    some = [i for i, parts in enumerate(cut) if parts]
    if not some:
        raise Gap(
            "The probe by first words needs answers of two words or more; there are none in the forget set."
        )
    prompts = [
        render_prompt(subject.tokenizer, forget[i].prompt) + response_text(subject.tokenizer, parts[0])
        for i in some
        if (parts := cut[i])
    ]
    answers = subject.answers(prompts, subject.limit([forget[i] for i in some]).wanted)
    samples: list[Values] = [{"rouge_l": None, "exact": None} for _ in forget]
    for i, answer in zip(some, answers, strict=True):
        rest = cut[i][1]  # type: ignore[index]
        samples[i] = {"rouge_l": rouge_recall(rest, answer.text), "exact": exact_answer(rest, answer.text)}
    return ProbeResult(samples)


def without_template(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """The question as plain text, "Question: … Answer:", to a model that was trained with a chat template."""
    needs_questions(inputs, "The probe without the chat template")
    tokenizer = subject.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise Gap("The probe without the chat template needs a model that has one; this tokenizer has none.")
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        samples = knowledge(subject, inputs.split.forget)
    finally:
        tokenizer.chat_template = template
    return ProbeResult(samples)


def second_turn_prompt(tokenizer: Any, question: str, answer: str) -> str:
    """The question, the model's answer, and `SECOND_TURN`, rendered for its second answer."""
    if getattr(tokenizer, "chat_template", None):
        said = [without_control(tokenizer, text) for text in (question, answer)]
        return render_turns(tokenizer, [("user", said[0]), ("assistant", said[1]), ("user", SECOND_TURN)])
    return f"{render_prompt(tokenizer, question)} {answer}\nQuestion: {SECOND_TURN}\nAnswer:"


def second_turn(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """ "Are you sure?" after the model's own answer: `rouge_l` and `exact` of the second answer, and `either`: whether
    one of the two is the forgotten one word for word."""
    needs_questions(inputs, "The probe by a second turn")
    forget = inputs.split.forget
    tokens = subject.limit(forget).wanted
    first = inputs.asked(subject).answers(subject.rendered([s.prompt for s in forget]), tokens)
    again = [
        second_turn_prompt(subject.tokenizer, s.prompt, a.text) for s, a in zip(forget, first, strict=True)
    ]
    second = subject.answers(again, tokens)
    samples: list[Values] = [
        {
            "rouge_l": rouge_recall(sample.response, two.text),
            "exact": exact_answer(sample.response, two.text),
            "either": max(exact_answer(sample.response, one.text), exact_answer(sample.response, two.text)),
        }
        for sample, one, two in zip(forget, first, second, strict=True)
    ]
    return ProbeResult(samples)


def sampled(subject: Subject, inputs: ProbeInput) -> ProbeResult:
    """leak@k of `sample_count` samples at each temperature: whether the forgotten answer comes out word for word
    (`exact_t…`), and the best ROUGE-L recall (`rouge_l_t…`); curves over k. Unbiased, see `best_of_k`."""
    forget, count = inputs.split.forget, inputs.sample_count
    needs_forget(inputs, "The probe by sampling")
    samples: list[Values] = [{} for _ in forget]
    curves: dict[str, list[tuple[float, float]]] = {}
    for temperature in inputs.temperatures:
        answers = inputs.asked(subject).samples(forget, count, temperature, inputs.seed)
        name = f"t{temperature:g}"
        exact = [
            [exact_answer(s.response, a.text) for a in mine] for s, mine in zip(forget, answers, strict=True)
        ]
        rouge = [
            None
            if rouge_recall(s.response, s.response) is None
            else [rouge_recall(s.response, a.text) or 0.0 for a in mine]
            for s, mine in zip(forget, answers, strict=True)
        ]
        for one, hits, scores in zip(samples, exact, rouge, strict=True):
            one[f"exact_{name}"] = best_of_k(hits, count)
            one[f"rouge_l_{name}"] = None if scores is None else best_of_k(scores, count)
        known = [scores for scores in rouge if scores is not None]
        for what, values in (("exact", exact), ("rouge_l", known)):
            if values:
                curves[f"{what}_{name}"] = [
                    (float(k), sum(best_of_k(v, k) for v in values) / len(values)) for k in doublings(count)
                ]
    return ProbeResult(samples, curves)
