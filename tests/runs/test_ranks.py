"""What process 0 does for all, and work that is shared out, with a channel that stands for the other process."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from dareu.errors import ConfigError, RunError
from dareu.runs import ranks


class OtherProcess:
    """Answers `gather` with what `theirs` makes of this process's value."""

    def __init__(self, rank: int, theirs: Callable[[Any], Any]) -> None:
        self.rank, self.theirs, self.asked = rank, theirs, 0

    def gather(self, value: Any) -> list[Any]:
        pair = [value, self.theirs(value)]
        return pair if self.rank == 0 else pair[::-1]

    def first(self) -> bool:
        self.asked += 1
        return self.asked == 1


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    def become(rank: int, theirs: Callable[[Any], Any]) -> OtherProcess:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        channel = OtherProcess(rank, theirs)
        monkeypatch.setattr(ranks, "_channel", channel)
        return channel

    return become


def test_one_process_is_a_plain_call() -> None:
    assert (ranks.world_size(), ranks.rank(), ranks.is_main()) == (1, 0, True)
    assert ranks.on_main(lambda: 3) == 3
    assert ranks.share_out([1, 2, 3], lambda x: x * x) == [1, 4, 9]
    assert ranks.gather("a") == ["a"] and ranks.speaks() and not ranks.lost_peer(RuntimeError("gloo"))


def test_process_0_alone_calls_and_its_answer_is_everybodys(as_rank: Any) -> None:
    as_rank(0, lambda value: None)
    assert ranks.world_size() == 2
    assert ranks.on_main(ranks.world_size) == 1  # inside it there is one process
    assert ranks.world_size() == 2
    as_rank(1, lambda value: ("from 0", None))
    assert ranks.on_main(lambda: pytest.fail("called on rank 1")) == "from 0"


def test_an_error_of_process_0_is_everybodys(as_rank: Any) -> None:
    as_rank(0, lambda value: None)
    with pytest.raises(ZeroDivisionError):
        ranks.on_main(lambda: 1 / 0)
    assert ranks.world_size() == 2
    as_rank(1, lambda value: (None, RunError("The disk is full.", "Make room.")))
    with pytest.raises(RunError, match="The disk is full. Make room."):
        ranks.on_main(lambda: 1)


def test_work_is_shared_out_and_comes_back_in_order(as_rank: Any) -> None:
    items, seen = [5, 1, 4, 2, 3], []

    def tenfold(item: int) -> int:
        seen.append(item)
        return item * 10

    as_rank(0, lambda value: (5, ([10, 20], None)))
    assert ranks.share_out(items, tenfold) == [50, 10, 40, 20, 30] and seen == [5, 4, 3]
    seen.clear()
    as_rank(1, lambda value: (5, ([50, 40, 30], None)))
    assert ranks.share_out(items, tenfold, reversed) == [50, 20, 40, 10, 30] and seen == [2, 1]
    as_rank(0, lambda value: (5, (None, ConfigError("Row 2 is broken.", "Mend it."))))
    with pytest.raises(ConfigError, match="Row 2 is broken"):
        ranks.share_out(items, tenfold)
    as_rank(0, lambda value: (4, ([], None)))
    with pytest.raises(RuntimeError, match="different work"):
        ranks.share_out(items, tenfold)


def test_the_first_process_that_fails_reports(as_rank: Any) -> None:
    channel = as_rank(1, lambda value: value)
    assert ranks.speaks() and not ranks.speaks() and channel.asked == 2
    assert ranks.lost_peer(RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:4242"))
    assert not ranks.lost_peer(RuntimeError("shapes do not match")) and not ranks.lost_peer(
        ValueError("gloo")
    )


def test_an_error_keeps_cause_and_cure_on_its_way() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("No key 'x'.", "Nearest: y.")))
    assert (type(error), error.cause, error.cure) == (ConfigError, "No key 'x'.", "Nearest: y.")

    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a}/{b}")

    _, sent = ranks._sendable((None, Odd(1, 2)))
    assert isinstance(sent, RunError) and "Odd: 1/2" in sent.cause
