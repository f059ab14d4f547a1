"""Doors before the broker and the database: transparent, and as troublesome as they are told to be."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from backstay.dev.ports import HOST, free_port
from backstay.dev.tcp_proxy import TcpProxy
from backstay.testing import eventually

BROKEN = (ConnectionError, asyncio.IncompleteReadError)


class Echo(asyncio.Protocol):
    """Says again what it hears."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Caller:
    """A client's connection."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> "Caller":
        self.reader, self.writer = await asyncio.open_connection(HOST, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    @property
    def port_of_mine(self) -> int:
        return int(self.writer.get_extra_info("sockname")[1])

    async def ask(self, words: bytes, within: float = 2.0) -> bytes:
        self.writer.write(words)
        return await asyncio.wait_for(self.reader.readexactly(len(words)), within)


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    port = free_port()
    server = await asyncio.get_running_loop().create_server(Echo, HOST, port)
    yield port
    server.close()


@pytest.fixture
async def door(echo: int) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(free_port(), echo) as door:
        yield door


async def test_bytes_come_through_in_order(door: TcpProxy) -> None:
    """More than any buffer holds, and the end of a connection too."""
    async with Caller(door.port) as caller:
        sent = b"".join(number.to_bytes(4, "big") for number in range(500_000))
        received, _ = await asyncio.gather(caller.reader.readexactly(len(sent)), _send(caller.writer, sent))

    assert received == sent
    await eventually(lambda: not door._links)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    for start in range(0, len(data), 65536):
        writer.write(data[start : start + 65536])
        await writer.drain()


async def test_a_cut_meets_whom_it_is_meant_for(echo: int) -> None:
    """One process loses its connections, another keeps them, and whoever was cut may come back at once."""
    names: dict[int, str] = {}
    async with TcpProxy(free_port(), echo, owners=lambda _ports: names) as door, Caller(door.port) as mine:
        names[mine.port_of_mine] = "orders"
        assert await mine.ask(b"hello") == b"hello"
        async with Caller(door.port) as other:
            names[other.port_of_mine] = "payments"
            assert await other.ask(b"hello") == b"hello"
            assert door.cut(["orders"]) == 1
            with pytest.raises(BROKEN):
                await mine.ask(b"gone")
            assert await other.ask(b"there") == b"there"
        async with Caller(door.port) as again:
            assert await again.ask(b"again") == b"again"


async def test_a_shut_door_refuses_and_opens_again(door: TcpProxy) -> None:
    """Whoever knocks meanwhile is reset; afterwards it is as before."""
    with door.trouble("refuse"):
        async with Caller(door.port) as caller:
            with pytest.raises(BROKEN):
                await caller.ask(b"hello")
    async with Caller(door.port) as caller:
        assert await caller.ask(b"hello") == b"hello"


async def test_a_slow_door_delays_both_ways_and_keeps_the_order(door: TcpProxy) -> None:
    """What was slow is not overtaken by what comes after it is quick again."""
    async with Caller(door.port) as caller:
        await caller.ask(b"warm")
        started = time.monotonic()
        with door.trouble("delay", delay=0.1):
            assert await caller.ask(b"slow") == b"slow"
            assert time.monotonic() - started >= 0.2
            caller.writer.write(b"first ")
            await asyncio.sleep(0.02)
        assert await caller.ask(b"second") == b"first "
        assert await caller.reader.readexactly(6) == b"second"


async def test_a_held_connection_hears_nothing_until_it_is_let_go(door: TcpProxy) -> None:
    """A black hole: nothing fails, nothing comes; then everything does."""
    async with Caller(door.port) as caller:
        await caller.ask(b"warm")
        with door.trouble("hold"), pytest.raises(TimeoutError):
            await caller.ask(b"held", within=0.2)
        assert await asyncio.wait_for(caller.reader.readexactly(4), 2) == b"held"
