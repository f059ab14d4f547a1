"""How a stream hands on what lies in its socket."""

from collections import deque
from struct import pack
from typing import Any, cast

from backstay.outbox.wal.feed import Feed
from backstay.outbox.wal.replication import GATHER, SLICE, Stream


class Connection:
    """Has so many messages to give, each a transaction's beginning."""

    socket = -1

    def __init__(self, messages: int) -> None:
        self.messages = deque(b"w" + bytes(24) + b"B" + pack(">qqI", 0, 0, n) for n in range(messages))
        self.confirmed = 0

    def get_copy_data(self, _async: int) -> tuple[int, bytes]:
        message = self.messages.popleft() if self.messages else b""
        return len(message), message

    def consume_input(self) -> None:
        return

    def put_copy_data(self, _data: bytes) -> None:
        self.confirmed += 1

    def flush(self) -> int:
        return 0


async def follow(messages: int, feed: Feed) -> list[tuple[int, bool]]:
    stream, found = Stream(cast("Any", Connection(messages)), feed), []
    async for count in stream.follow(60.0):
        if not count:
            break
        found.append((count, feed.gathering))
    return found


async def test_hands_on_in_large_batches() -> None:
    """A backlog comes by the thousand, and its rest at once; nothing waits for what isn't there."""
    feed = Feed(spills=True, max_rows=10, max_bytes=1000)

    assert await follow(GATHER + SLICE + 1, feed) == [(GATHER, False), (SLICE + 1, False)]
    assert await follow(3, feed) == [(3, False)]
