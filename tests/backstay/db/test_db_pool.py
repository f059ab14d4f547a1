"""The pool alone, with connections that are only objects."""

import asyncio
from typing import Any, cast

import pytest

import backstay.resilience as r
from backstay.db import Unavailable, ahead
from backstay.db.driver import Connection
from backstay.db.pool import Pool
from backstay.testing import eventually


class FakeConnection:
    def __init__(self) -> None:
        self.closed = False
        self.in_transaction = False
        self.executed: list[str] = []

    def is_closed(self) -> bool:
        return self.closed

    def is_in_transaction(self) -> bool:
        return self.in_transaction

    def terminate(self) -> None:
        self.closed = True

    async def close(self, timeout: float) -> None:
        self.closed = True

    async def execute(self, sql: str) -> str:
        self.executed.append(sql)
        self.in_transaction = False
        return sql


class Server:
    def __init__(self) -> None:
        self.up = True
        self.made: list[FakeConnection] = []

    async def connect(self) -> Connection:
        await asyncio.sleep(0)
        if not self.up:
            raise ConnectionRefusedError("nobody listens")
        self.made.append(FakeConnection())
        return cast("Connection", self.made[-1])


@pytest.fixture
def server() -> Server:
    return Server()


def pool_of(server: Server, **options: Any) -> Pool:
    return Pool(server.connect, **{"max_size": 2, "acquire_timeout": 5.0, **options})


async def test_last_in_first_out(server: Server) -> None:
    """The connection used last is used next: its caches are warm."""
    pool = pool_of(server)
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(first)
    pool.release(second)

    assert await pool.acquire() is second


async def test_opens_no_more_than_needed(server: Server) -> None:
    """One user after the other needs one connection."""
    pool = pool_of(server)
    for _ in range(10):
        pool.release(await pool.acquire())

    assert len(server.made) == 1


async def test_waiters_are_served_in_order(server: Server) -> None:
    """When all are in use, who came first is served first."""
    pool = pool_of(server, max_size=1)
    held = await pool.acquire()
    served: list[int] = []

    async def user(number: int) -> None:
        connection = await pool.acquire()
        served.append(number)
        pool.release(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(user(number))
        await eventually(lambda: pool.statistics().waiting == 3)
        pool.release(held)

    assert served == [0, 1, 2]


async def test_timeout_says_why(server: Server) -> None:
    """A caller that gets no connection in time is told so, and nothing is lost for the others."""
    pool = pool_of(server, max_size=1, acquire_timeout=0.01)
    held = await pool.acquire()

    with pytest.raises(Unavailable, match="all 1 are in use"):
        await pool.acquire()
    pool.release(held)

    assert await pool.acquire() is held
    assert pool.statistics().timeouts == 1


async def test_nobody_waits_beyond_the_deadline(server: Server) -> None:
    """The deadline of the request is nearer than the pool's own time-out, so it decides."""
    pool = pool_of(server, max_size=1, acquire_timeout=60.0)
    await pool.acquire()

    with r.deadline(0.02), pytest.raises(Unavailable, match=r"within 0\.0"):
        await pool.acquire()
    with r.deadline(-1.0), pytest.raises(Unavailable, match="within 0 s"):
        await pool.acquire()

    assert pool.statistics().timeouts == 2


async def test_what_ends_work_goes_first(server: Server) -> None:
    """A waiter that is `ahead` gets the next connection, in order among its like."""
    pool = pool_of(server, max_size=1)
    connection = await pool.acquire()
    order: list[str] = []

    async def use(name: str) -> None:
        got = await pool.acquire()
        order.append(name)
        pool.release(got)

    async def use_ahead(name: str) -> None:
        with ahead():
            await use(name)

    tasks = [asyncio.ensure_future(each) for each in (use("new"), use_ahead("old"), use_ahead("older"))]
    await eventually(lambda: pool.statistics().waiting == 3)
    pool.release(connection)
    await asyncio.gather(*tasks)

    assert order == ["old", "older", "new"]


async def test_broken_connection_is_replaced(server: Server) -> None:
    """A connection that broke while in use or idle is never handed out again."""
    pool = pool_of(server)
    broken = await pool.acquire()
    server.made[0].closed = True
    pool.release(broken)
    fresh = await pool.acquire()
    pool.release(fresh)
    server.made[1].closed = True

    assert await pool.acquire() not in (broken, fresh)
    assert pool.statistics().size == 1
    assert pool.statistics().dropped == 2


async def test_open_transaction_is_not_handed_on(server: Server) -> None:
    """A connection given back inside a transaction is closed, not shared."""
    pool = pool_of(server)
    connection = await pool.acquire()
    server.made[0].in_transaction = True
    pool.release(connection)

    assert server.made[0].closed
    assert pool.statistics().idle == 0


async def test_recover_rolls_back(server: Server) -> None:
    """After a cancelled user, the connection is rolled back behind the scenes and used again."""
    pool = pool_of(server)
    connection = await pool.acquire()
    server.made[0].in_transaction = True
    pool.recover(connection)
    await eventually(lambda: pool.statistics().idle)

    assert server.made[0].executed == ["ROLLBACK"]
    assert await pool.acquire() is connection


async def test_dropping_lets_a_waiter_open(server: Server) -> None:
    """When a connection breaks while others wait, one of them opens a new one."""
    pool = pool_of(server, max_size=1)
    held = await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await eventually(lambda: pool.statistics().waiting == 1)
    pool.drop(held)

    assert await waiting is not held
    assert pool.statistics().size == 1


async def test_cancelled_waiter_gives_it_on(server: Server) -> None:
    """A waiter that is cancelled in the moment it is served passes the connection on."""
    pool = pool_of(server, max_size=1)
    held = await pool.acquire()
    first, second = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await eventually(lambda: pool.statistics().waiting == 2)
    pool.release(held)
    first.cancel()

    assert await second is held
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_failed_connect_frees_its_place(server: Server) -> None:
    """A refused connection is Unavailable and takes no place in the pool."""
    pool = pool_of(server, max_size=1)
    server.up = False
    with pytest.raises(Unavailable, match="nobody listens"):
        await pool.acquire()
    server.up = True

    assert await pool.acquire()


async def test_closes_what_a_burst_left(server: Server) -> None:
    """Connections that nobody took between two looks are closed, the longest unused first, down to the least size."""
    pool = pool_of(server, max_size=4)
    await pool.open(1)
    burst = [await pool.acquire() for _ in range(4)]
    for connection in burst:
        pool.release(connection)
    pool.shrink()
    assert pool.statistics().size == 4  # all were in use a moment ago

    two = [await pool.acquire(), await pool.acquire()]
    for connection in two:
        pool.release(connection)
    pool.shrink()
    assert pool.statistics().size == pool.statistics().idle == 2
    await eventually(lambda: [made.closed for made in server.made].count(True) == 2)
    assert not any(connection.is_closed() for connection in two)

    pool.shrink()
    pool.shrink()
    assert pool.statistics().size == 1
    assert await pool.acquire() in two
    pool.shrink()  # nothing is idle
    assert pool.statistics().size == 1
    await pool.close()


async def test_close(server: Server) -> None:
    """Closing closes what is idle, waits for what is in use, and refuses newcomers."""
    pool = pool_of(server)
    idle, used = await pool.acquire(), await pool.acquire()
    pool.release(idle)
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    assert not closing.done()
    pool.release(used)
    await closing

    assert all(connection.closed for connection in server.made)
    assert pool.statistics().size == 0
    with pytest.raises(Unavailable, match="closed"):
        await pool.acquire()
