"""The way out of a request: for work that is begun in it and outlives it."""

import contextlib
from collections.abc import Iterator

from backstay.resilience.deadline import deadline
from backstay.resilience.retry import own_attempts


@contextlib.contextmanager
def detached() -> Iterator[None]:
    """What is done inside, and the tasks made there, belong to no request: no deadline, no mark of a repetition.

    A task made inside a request loses both by itself when the request is over; with this it never has them.
    """
    with deadline(None), own_attempts():
        yield


__all__ = ["detached"]
