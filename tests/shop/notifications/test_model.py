from hypothesis import given
from hypothesis import strategies as st

from shop.notifications.model import FIRST_PAUSE, LONGEST_PAUSE, pause


def test_pauses_double_up_to_a_limit():
    """A mail server that is away is asked less and less often, but for ever."""
    assert [pause(attempts) for attempts in range(1, 9)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@given(st.integers(1, 2**31))
def test_no_number_of_attempts_is_too_many(attempts: int):
    """After years of attempts the pause is still a pause."""
    assert FIRST_PAUSE <= pause(attempts) <= LONGEST_PAUSE
