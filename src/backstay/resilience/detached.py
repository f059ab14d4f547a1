"""The way out of a request: for work that is begun in it and outlives it."""

import contextlib
from collections.abc import Iterator

from backstay.resilience.deadline import deadline
from backstay.resilience.retry import own_attempts


@contextlib.contextmanager
def detached() -> Iterator[None]:
    """Run the block, and tasks created in it, outside of the request: without its deadline and repetition mark.

    A task made inside a request loses both by itself when the request is over; with this it never has them.
    """
    with deadline(None), own_attempts():
        yield


__all__ = ["detached"]
