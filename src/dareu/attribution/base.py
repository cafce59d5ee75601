"""What every attributor offers, and the two helpers that callers need to ask it about half-finished text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from scipy.special import softmax

from dareu.data.corpus import Sample
from dareu.errors import DataError
from dareu.runs.files import write_json

REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not (yet) a character


@runtime_checkable
class Attributor(Protocol):
    """Which owner's data a text goes back to.

    `owners` is the class order. With `nobody`, one more class comes last: broken text and text of no owner. C
    is the number of classes. Where there is no evidence (empty text) the scores are uniform over the C
    classes.
    """

    owners: list[str]
    nobody: bool

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Scores of whole texts, shape (B, C), float64 in [0, 1], rows sum to 1."""
        ...

    def prefix_probabilities(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Scores given `texts[i][:e]` for each character offset e in `ends[i]`: arrays (len(ends[i]), C)."""
        ...


class WholeTextAttributor:
    """What attributors share that read whole texts and know no background class: a prefix is a text of its own."""

    kind: ClassVar[str]
    nobody = False
    owners: list[str]
    temperature: float = 1.0

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """(B, C), any numbers, the higher the likelier; 0 in a row without evidence."""
        raise NotImplementedError

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(B, C), float64, rows sum to 1; uniform without evidence."""
        scores = self.scores(list(texts)) if len(texts) else np.zeros((0, len(self.owners)))
        return np.asarray(softmax(scores / self.temperature, axis=1))

    def prefix_probabilities(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """One row for each prefix, by one call for each distinct prefix."""
        return prefix_by_calls(self, texts, ends)

    def write_state(self, folder: Path, name: str, state: Any) -> None:
        """`attributor.json`, which says what kind it is, and `state` as the JSON file `name`."""
        for file, tree in (("attributor.json", {"kind": self.kind}), (name, state)):
            write_json(folder / file, tree)


def owned_responses(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """The samples that have an owner and a response, and the owners in order of appearance.

    Raises:
        DataError: There are fewer than two owners.
    """
    owned = [s for s in samples if s.owner is not None and s.response.strip()]
    owners = list(dict.fromkeys(str(s.owner) for s in owned))
    if len(owners) < 2:
        raise DataError(
            f"An attributor needs at least two owners; got {len(owners)}.", "Add data of other owners."
        )
    return owned, owners


def uniform(rows: int, classes: int) -> np.ndarray:
    """The scores of no evidence, shape (rows, classes)."""
    return np.full((rows, classes), 1.0 / classes)


def class_count(attributor: Attributor) -> int:
    """C: the owners, and the background class where there is one."""
    return len(attributor.owners) + int(attributor.nobody)


def scores_of(attributor: Attributor, texts: Sequence[str]) -> np.ndarray:
    """(B, C); a blank text is no evidence and scores uniformly, whatever the attributor makes of it."""
    probs = uniform(len(texts), class_count(attributor))
    some = [i for i, text in enumerate(texts) if text.strip()]
    if some:
        probs[some] = attributor.probabilities([texts[i] for i in some])
    return probs


def prefix_by_calls(
    attributor: Attributor, texts: Sequence[str], ends: Sequence[Sequence[int]], batch_size: int = 512
) -> list[np.ndarray]:
    """The k-prefix path: `probabilities` of each distinct prefix, `batch_size` of them at a time.

    For attributors that are not causal. The empty prefix scores uniformly and costs no call.
    """
    prefixes = [[text[: max(end, 0)] for end in row] for text, row in zip(texts, ends, strict=True)]
    distinct = list(dict.fromkeys(prefix for row in prefixes for prefix in row if prefix))
    classes = class_count(attributor)
    scored = [
        attributor.probabilities(distinct[start : start + batch_size])
        for start in range(0, len(distinct), batch_size)
    ]
    table = np.concatenate([uniform(1, classes), *scored])
    row_of = {prefix: index for index, prefix in enumerate(distinct, start=1)}
    return [table[[row_of.get(prefix, 0) for prefix in row]].reshape(-1, classes) for row in prefixes]


def token_ends(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[int]]:
    """Decoded text of a response, without special tokens, and how long it is after each token.

    A character that spans several byte-level tokens counts from the token that completes it; bytes at the end
    that never become a character are left out of the text. The offsets never decrease and end at `len(text)`.

    Decodes a short window of tokens at a time, so that the cost is linear in their number; where a decoder is
    not local (its text depends on tokens far back) each prefix is decoded whole instead.
    """

    def decode(part: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(part), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    ids = list(ids)
    whole = decode(ids).rstrip(REPLACEMENT)
    text, ends = "", []
    start, settled = 0, 0  # the window is ids[start:]; the text of ids[:settled] is final
    before, tail = "", ""  # text of ids[start:settled]; text after it that may still grow
    for stop in range(1, len(ids) + 1):
        after = decode(ids[start:stop])
        tail = after.rstrip(REPLACEMENT)[len(before) :]
        if tail and not after.endswith(REPLACEMENT):
            text, tail = text + tail, ""
            start, settled = settled, stop
            before = decode(ids[start:settled])
        ends.append(len(text) + len(tail))
    if text + tail != whole:
        ends = [len(decode(ids[:stop]).rstrip(REPLACEMENT)) for stop in range(1, len(ids) + 1)]
    ends = [min(int(end), len(whole)) for end in np.maximum.accumulate(ends)] if ends else []
    return whole, ends
