"""A replication connection: the streaming protocol over psycopg's bindings of libpq, the only place that imports it.

The server pushes; we read what lies in the socket and confirm positions. Nothing is read while nobody has room, so the
server waits too, and memory stays bounded whatever the size of a transaction.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from struct import Struct
from typing import TYPE_CHECKING, Any

from backstay import faults
from backstay.db import DatabaseError, Unavailable
from backstay.errors import ConfigError
from backstay.outbox.errors import OutboxError
from backstay.outbox.wal.feed import Feed
from backstay.outbox.wal.pgoutput import INSERT, Decoder

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

CONNECT_TIMEOUT = 5.0  # seconds
START_TIMEOUT = 30.0  # seconds the server gets to find its place in the log
LOOK = 0.1  # seconds without a message after which whoever follows gets a turn
SLICE = 200  # messages taken before others on the event loop get a turn
GATHER = 1000  # messages after which events are handed out although more lies in the socket: large batches cost less
_DATA, _ALIVE = b"wk"
_ALIVE_BODY = Struct(">qqb").unpack_from
_STATUS = Struct(">cqqqqB")
_POSTGRES_EPOCH = 946_684_800  # 2000-01-01 in seconds


class SlotTaken(OutboxError):
    """The slot is in use by another reader."""


class SlotLost(OutboxError):
    """The slot isn't there, or the server has thrown away what it should have kept."""


@asynccontextmanager
async def connect(dsn: str, *, timeout: float) -> AsyncIterator["PGconn"]:
    """A connection that may replicate; DatabaseError when the server doesn't want that.

    timeout: seconds without a sign of ours after which the server gives the slot to others.
    """
    connection = await _connecting(asyncio.to_thread(_open, dsn, timeout))
    try:
        yield connection
    finally:
        connection.finish()


async def _connecting(opening: Any) -> "PGconn":
    task = asyncio.ensure_future(opening)
    try:
        connection: PGconn = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.cancelled() or done.exception() or done.result().finish())
        raise
    return connection


def _open(dsn: str, timeout: float) -> "PGconn":
    try:
        from psycopg import pq
        from psycopg.conninfo import make_conninfo
    except ImportError as error:
        raise ConfigError("relay source 'wal' needs psycopg: install backstay[wal], or use source='polling'") from error
    conninfo = make_conninfo(
        dsn,
        replication="database",
        connect_timeout=int(CONNECT_TIMEOUT),
        tcp_user_timeout=int(timeout * 1000),
        options=f"-c wal_sender_timeout={int(timeout * 1000)} -c TimeZone=UTC -c DateStyle=ISO"
        " -c client_encoding=UTF8 -c statement_timeout=0",
    )
    connection = pq.PGconn.connect(conninfo.encode())
    if connection.status != pq.ConnStatus.OK:
        message = connection.error_message.decode(errors="replace").strip()
        connection.finish()
        raise Unavailable(f"no replication connection: {message}")
    connection.nonblocking = 1
    return connection


class Stream:
    """The stream of a slot, pushed into a `Feed`."""

    def __init__(self, connection: "PGconn", feed: Feed) -> None:
        self._connection = connection
        self._feed = feed
        self._decoder = Decoder()
        self._readable = asyncio.Event()
        self._socket = connection.socket
        self._errors = _errors()
        self.room = asyncio.Event()
        """To be set when the feed has been emptied a little."""

    async def start(self, slot: str, publication: str) -> None:
        """Request all changes since the last confirmed position. SlotTaken, SlotLost, DatabaseError."""
        command = f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{publication}'"
        self._listen()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                self._connection.send_query(f"{command}, messages 'true')".encode())
                while self._connection.flush() or self._connection.is_busy():
                    self._readable.clear()
                    await within(self._readable, LOOK)
                    self._connection.consume_input()
        except self._errors as error:
            raise Unavailable(f"the replication connection is lost: {error}") from error
        except TimeoutError:
            raise Unavailable(f"the server did not start replication within {START_TIMEOUT:g} s") from None
        self._started(self._connection.get_result())

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._readable.set)

    @staticmethod
    def _started(result: "PGresult | None") -> None:
        from psycopg.pq import DiagnosticField, ExecStatus

        if result is None:
            raise Unavailable("the replication connection has ended")
        if result.status == ExecStatus.COPY_BOTH:
            return
        state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        message = result.error_message.decode(errors="replace").strip()
        if state == "55006":
            raise SlotTaken(message)
        if state in ("42704", "55000"):
            raise SlotLost(message)
        raise DatabaseError(f"{message} ({state})", sqlstate=state)

    def close(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._socket)

    async def follow(self, interval: float) -> AsyncIterator[int]:
        """Push messages into the feed for ever; yields how many there were, also none, at least each `interval`."""
        feed, confirm_at, gathered = self._feed, 0.0, 0
        while True:
            # Never around events that may be handed out already: they would wait for others again and again.
            feed.gathering = feed.gathering or not feed.waiting
            try:
                count = self._drain()
            except self._errors as error:
                raise Unavailable(f"the replication connection is lost: {error}") from error
            gathered += count
            if count < SLICE or gathered >= GATHER:
                feed.gathering = False
                if gathered:
                    yield gathered
                gathered = 0
            now = time.monotonic()
            if now >= confirm_at:
                await self.confirm()
                confirm_at = now + interval
            if count == SLICE:
                await asyncio.sleep(0)
                continue
            await self._wait(max(0.001, min(confirm_at - now, LOOK)))
            if not count:
                yield 0

    async def confirm(self) -> None:
        """Confirm the position up to which the server may drop its log, and request its own position."""
        await faults.point("outbox.wal.before-confirm")
        position = self._feed.confirmed
        clock = int((time.time() - _POSTGRES_EPOCH) * 1_000_000)
        try:
            self._connection.put_copy_data(_STATUS.pack(b"r", position, position, position, clock, 1))
            self._connection.flush()  # what doesn't fit now goes with the next one
        except self._errors as error:
            raise Unavailable(f"the replication connection is lost: {error}") from error

    def _drain(self) -> int:
        """Take what is there, while there is room."""
        feed, decoder, get = self._feed, self._decoder, self._connection.get_copy_data
        self._readable.clear()
        for count in range(SLICE):
            if feed.full:
                return count
            size, view = get(1)
            if size <= 0:
                if size < 0:
                    raise Unavailable(f"the replication connection has ended: {self._reason()}")
                self._connection.consume_input()
                size, view = get(1)
                if size <= 0:
                    return count
            data = bytes(view)
            if data[0] == _DATA:
                if data[25] != INSERT:
                    if (message := decoder.decode(data, 25)) is not None:
                        feed.push(message)
                elif (event := decoder.insert(data, 25)) is not None:
                    feed.insert(*event)
            elif data[0] == _ALIVE:
                feed.quiet(_ALIVE_BODY(data, 1)[0])
        return SLICE

    async def _wait(self, seconds: float) -> None:
        if not self._feed.full:
            await within(self._readable, seconds)
            return
        self.close()  # what lies in the socket would call again and again
        try:
            self.room.clear()
            await within(self.room, seconds)
        finally:
            self._listen()

    def _reason(self) -> str:
        result = self._connection.get_result()
        message = result.error_message if result is not None else b""
        return message.decode(errors="replace").strip() or "the server closed it"


def _errors() -> tuple[type[Exception], ...]:
    from psycopg import Error

    return (Error,)


async def within(event: asyncio.Event, seconds: float) -> None:
    """Wait for `event`, which is set after so long at the latest. Cheaper than a time-out: it is waited for often."""
    if event.is_set():
        return
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
