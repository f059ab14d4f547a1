"""UUID version 7 (RFC 9562): sortable by time, and strictly increasing within one process.

The 74 bits behind the millisecond are random at its first id and grow by a random step for each further one.
A clock that goes back doesn't take the ids with it.
"""

import os
import threading
import time
from uuid import UUID

_TAIL_BITS = 74  # rand_a (12) and rand_b (62)
_RAND_B_BITS = 62
_RAND_B_MASK = (1 << _RAND_B_BITS) - 1
_VERSION = 7 << 76
_VARIANT = 2 << 62


class _Sequence:
    """State of the last id of this process; reset in a forked child."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Lock()
        self.millisecond = 0
        self.tail = 0

    def next(self, now: int) -> tuple[int, int]:
        """Return the millisecond and the tail of the next id."""
        with self.lock:
            if now > self.millisecond:
                self.millisecond = now
                # The top bit stays clear, so that thousands of ids fit into a millisecond before it runs over.
                self.tail = int.from_bytes(os.urandom(10), "big") >> 7
            else:
                self.tail += int.from_bytes(os.urandom(4), "big") + 1
                if self.tail >> _TAIL_BITS:
                    self.millisecond += 1
                    self.tail = int.from_bytes(os.urandom(10), "big") >> 7
            return self.millisecond, self.tail


_sequence = _Sequence()
os.register_at_fork(after_in_child=_sequence.reset)


def uuid7() -> UUID:
    """Return a new UUIDv7, greater than every earlier one of this process."""
    millisecond, tail = _sequence.next(time.time_ns() // 1_000_000)
    rand_a, rand_b = tail >> _RAND_B_BITS, tail & _RAND_B_MASK
    return UUID(int=(millisecond << 80) | _VERSION | (rand_a << 64) | _VARIANT | rand_b)


__all__ = ["uuid7"]
