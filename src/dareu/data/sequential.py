"""Requests one after another: what is forgotten, and what is left, in each round and after it."""

from collections.abc import Sequence
from dataclasses import dataclass

from dareu.config import ForgetConfig, RoundsConfig, RunConfig
from dareu.data.corpus import Corpus, Split
from dareu.data.split import cut, known_owners, split_corpus
from dareu.errors import DataError


@dataclass(frozen=True)
class RoundSplit:
    """One round, as the method and the evaluation see it.

    `request`: D_F holds this round's owners, D_R everybody who was not forgotten in this round or before; the data
    of owners forgotten earlier is in neither, because it is gone. `so_far`: D_F holds everybody forgotten so far.
    """

    request: Split
    so_far: Split


def split_run(corpus: Corpus, config: RunConfig) -> Split:
    """The split that a run ends with: `forget`, or everything that its rounds forget. Errors as `split_corpus`."""
    if config.rounds is None:
        return split_corpus(corpus, config.forget)
    return split_rounds(corpus, config.rounds)[-1].so_far


def split_rounds(corpus: Corpus, rounds: RoundsConfig) -> tuple[RoundSplit, ...]:
    """The split of each round.

    Raises:
        DataError: A name owns nothing (the message has the nearest), an owner is in two rounds, or the rounds leave
            nobody to retain.
    """
    split_corpus(corpus, ForgetConfig(count=1))  # samples without an owner, a corpus of one owner
    requests = _requests(corpus, rounds)
    splits, gone = [], set[str]()
    for number, owners in enumerate(requests, start=1):
        again = sorted(gone & owners)
        if again:
            first = next(i for i, names in enumerate(requests, start=1) if again[0] in names)
            raise DataError(
                f"rounds names '{again[0]}' in round {first} and in round {number}.",
                "An owner can be forgotten only once: name each owner once.",
            )
        gone |= owners
        splits.append(RoundSplit(cut(corpus, owners, gone), cut(corpus, gone, gone)))
    if len(gone) == len(corpus.owners):
        raise DataError(
            f"The {len(requests)} rounds would forget all {len(gone)} owners; no owner would be left to retain.",
            f"Forget at most {len(gone) - 1} owners in all.",
        )
    return tuple(splits)


def _requests(corpus: Corpus, rounds: RoundsConfig) -> Sequence[set[str]]:
    owners = corpus.owners
    if rounds.owners is not None:
        return [
            known_owners(((name, f"Round {i} of rounds") for name in names), owners)
            for i, names in enumerate(rounds.owners, start=1)
        ]
    count, each = int(rounds.count or 0), rounds.owners_per_round
    if count * each >= len(owners):
        raise DataError(
            f"rounds requests {count} rounds of {each}, {count * each} owners; the data has {len(owners)}, and "
            "at least one must be left to retain.",
            "Lower rounds.count or rounds.owners_per_round.",
        )
    last_first = owners[::-1]
    return [set(last_first[i * each : (i + 1) * each]) for i in range(count)]
