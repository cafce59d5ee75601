"""Sample answers of all models side by side, and the words that they share with the reference."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from dareu.errors import printable
from dareu.report.figures import MODELS, SETS, number
from dareu.runs.files import read_jsonl

# How many of each set a page shows. More than these are drawn evenly over the set, whatever the outcome.
LIMITS = {"forget": 200, "retain": 24, "test": 24}
# Words that tell nothing of an owner, in the languages of the benchmarks; they are never marked.
COMMON = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "did", "do", "does", "for", "from", "had", "has",
    "have", "he", "her", "hers", "him", "his", "i", "in", "is", "it", "its", "of", "on", "or", "she", "that",
    "the", "their", "them", "they", "this", "to", "was", "were", "who", "with", "you", "your",
})  # fmt: skip
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What one model wrote; scores are 0 to 1 or None."""

    model: str
    text: Markup
    rouge_l: float | None
    attribution: float | None
    attribution_heldout: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """One question with the answers of every model that has one."""

    prompt: str
    reference: str
    owner: str
    answers: tuple[Answer, ...]

    @property
    def flagged(self) -> bool:
        return any(answer.flags for answer in self.answers if answer.model == "unlearned")


@dataclass(frozen=True)
class Group:
    """The samples of one set that are shown, of `total`."""

    name: str
    samples: tuple[Shown, ...]
    total: int
    flagged: int = 0  # of those shown, how many come first because the unlearned model's answer has a flag


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one a line; empty where there is no file.

    Raises:
        RunError: A line is none.
    """
    return [row for row in read_jsonl(path) if isinstance(row, dict)] if path.is_file() else []


def sample_groups(run_dir: Path) -> list[Group]:
    """Forget, retain and test samples of `run_dir`/samples, matched among models by set and index."""
    tables: dict[str, dict[tuple[str, str], Record]] = {}
    for model in MODELS:
        rows = read_lines(run_dir / "samples" / f"{model}.jsonl")
        if rows:
            tables[model] = {(str(r.get("set")), str(r.get("index"))): r for r in rows}
    groups = []
    for name in SETS:
        keys = list(dict.fromkeys(k for rows in tables.values() for k in rows if k[0] == name))
        if keys:
            chosen = [_shown(key, tables) for key in spread(keys, LIMITS[name])]
            first = [one for one in chosen if one.flagged]
            rest = [one for one in chosen if not one.flagged]
            groups.append(Group(name, (*first, *rest), len(keys), len(first)))
    return groups


def spread(items: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` items, evenly over the whole, in order."""
    if len(items) <= limit:
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def _shown(key: tuple[str, str], tables: Mapping[str, Mapping[tuple[str, str], Record]]) -> Shown:
    records = {model: rows[key] for model, rows in tables.items() if key in rows}
    first = next(iter(records.values()))
    prompt, reference = str(first.get("prompt") or ""), str(first.get("reference") or "")
    answers = tuple(
        _answer(model, record, reference, prompt if key[0] == "forget" else None)
        for model, record in records.items()
    )
    return Shown(prompt, reference, str(first.get("owner") or ""), answers)


def _answer(model: str, record: Record, reference: str, question: str | None) -> Answer:
    """`question` is that of a forget sample; None where the reference is no secret."""
    response = str(record.get("response") or "")
    return Answer(
        model,
        underlined(response, reference, question),
        number(record.get("rouge_l")),
        number(record.get("attribution")),
        number(record.get("attribution_heldout")),
        _flags(record, response, reference, secret=question is not None and model != "original"),
    )


def _flags(record: Record, response: str, reference: str, secret: bool) -> tuple[str, ...]:
    """What is wrong with an answer, for the eye; the figures come from the evaluation."""
    flags = ["empty"] if not any(c.isalnum() for c in response) else []
    if record.get("finished") is False:
        flags.append("unfinished")
    broken = record.get("broken_words") or record.get("broken")
    if isinstance(broken, list | tuple) and broken:
        flags.append("not a word: " + ", ".join(map(str, broken)))
    elif broken is True or (isinstance(broken, int | float) and broken > 0):
        flags.append("holds an unknown word")
    if secret and response and response.split() == reference.split():
        flags.append("the forgotten answer")
    return tuple(flags)


def underlined(response: str, reference: str, question: str | None = None) -> Markup:
    """`response`, escaped, with the words that it shares with `reference`, in order, inside <u>.

    Where a `question` is given, shared words that it does not hold stand inside <mark> as well.
    """
    pieces = re.findall(r"\w+|\W+", response)
    places = [i for i, p in enumerate(pieces) if p[0].isalnum() or p[0] == "_"]
    ours, theirs = [pieces[i].lower() for i in places], re.findall(r"\w+", reference.lower())
    question_words = None if question is None else set(re.findall(r"\w+", question.lower())) | COMMON
    shared: set[int] = set()
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        shared |= {places[i] for i in range(block.a, block.a + block.size)}
    return Markup("").join(
        _piece(p, i in shared, question_words is not None and p.lower() not in question_words)
        for i, p in enumerate(pieces)
    )


def _piece(word: str, shared: bool, telling: bool) -> Markup:
    if not shared:
        return escape(printable(word))
    return (Markup("<mark><u>{}</u></mark>") if telling else Markup("<u>{}</u>")).format(word)
