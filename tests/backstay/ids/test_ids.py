import threading
import time
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from backstay import ids
from backstay.ids import uuid7


def test_layout() -> None:
    """An id is an RFC 9562 UUID of version 7 that carries the current millisecond."""
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000

    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before <= made.int >> 80 <= after + 1


def test_strictly_increasing() -> None:
    """Ids of one process sort in the order in which they were made."""
    made = [uuid7() for _ in range(20_000)]

    assert sorted(set(made)) == made


def test_threads_never_collide() -> None:
    """Threads share one sequence."""
    made: list[list[UUID]] = []

    def make() -> None:
        made.append([uuid7() for _ in range(5_000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({one for part in made for one in part}) == 20_000


@given(st.lists(st.integers(min_value=0, max_value=2**40), min_size=2, max_size=30))
def test_clock_may_go_back(milliseconds: list[int]) -> None:
    """Whatever the clock does, the next id is greater than the last."""
    sequence = ids._Sequence()
    made = [sequence.next(moment) for moment in milliseconds]

    assert sorted(set(made)) == made


def test_tail_runs_over_into_the_millisecond() -> None:
    """When the random part of a millisecond is used up, the next millisecond is taken early."""
    sequence = ids._Sequence()
    sequence.next(5)
    sequence.tail = (1 << 74) - 1

    assert sequence.next(5)[0] == 6
