"""Waits between attempts are computed from the number of failures, and bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.tasks import Backoff


def test_waits_grow_to_the_cap() -> None:
    """Each wait is `factor` times the one before, and none is longer than `cap`."""
    backoff = Backoff(first=0.5, cap=3.0, jitter=0.0)

    assert [backoff.wait(failures) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_jitter_shortens_by_its_share() -> None:
    """With jitter 0.5 a wait lies between half of itself and all of it."""
    backoff = Backoff(first=1.0, cap=8.0)

    assert (backoff.wait(3, rng=lambda: 0.0), backoff.wait(3, rng=lambda: 1.0)) == (4.0, 2.0)


@given(st.integers(min_value=0, max_value=10**9), st.floats(min_value=1.0, max_value=100.0))
def test_no_number_of_failures_overflows(failures: int, factor: float) -> None:
    """However long something fails, the wait stays within its bounds."""
    backoff = Backoff(first=0.1, cap=2.0, factor=factor)

    assert 0.05 <= backoff.wait(failures) <= 2.0


@pytest.mark.parametrize(
    "wrong",
    [{"first": 0.0}, {"first": 3.0}, {"factor": 0.5}, {"factor": 101.0}, {"jitter": 1.5}, {"jitter": -0.1}],
)
def test_impossible_values_are_refused(wrong: dict[str, float]) -> None:
    """A backoff that could wait for nothing, or shrink, is refused when it is made."""
    with pytest.raises(ValueError, match="must be"):
        Backoff(**{"first": 1.0, "cap": 2.0, **wrong})
