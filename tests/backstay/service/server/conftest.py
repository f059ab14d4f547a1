"""A bare ASGI application behind the service kit's server, on asyncio's own loop and on uvloop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from backstay.service.server import Server, bind

WAIT = 30.0
"""Seconds after which something that should happen is taken not to."""


def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Peer:
    """A client that says anything, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        async with asyncio.timeout(WAIT):
            return await self.reader.readuntil(end)

    async def hear_all(self) -> bytes:
        """Everything until the other side closes."""
        async with asyncio.timeout(WAIT):
            return await self.reader.read()


class Served:
    """A running server."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server = server
        self._stack = stack

    async def connect(self, **options: Any) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, **options)
        self._stack.push_async_callback(_cut, writer)
        return Peer(reader, writer)

    async def ask(self, data: bytes) -> bytes:
        """Send bytes and read until the server closes."""
        peer = await self.connect()
        peer.say(data)
        return await peer.hear_all()


async def _cut(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(app)`; ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(app: Any, *, keep_alive: float = 30.0, drain: float = 10.0, **more: Any) -> Served:
            listening = bind("127.0.0.1", 0)
            stack.callback(listening.close)
            server = Server(app, listening, keep_alive=keep_alive, drain=drain, **more)
            await stack.enter_async_context(server)
            return Served(server, stack)

        yield start
