"""The HTTP server inside our own program: uvicorn (httptools, uvloop) without its signals, its logs, its lifespan."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backstay.errors import ConfigError

BACKLOG = 2048
"""Connections that may wait to be accepted."""
HEAD_TIMEOUT = 10.0
"""Seconds in which a connection must send its (next) request head."""
MAX_HEAD = 64 * 1024
"""Bytes of a request head."""

_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `ConfigError` if the address can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(f"HOST={host!r} PORT={port}: can't listen there ({error.strerror or error})") from error
    return listening


class Server:
    """Serves an ASGI application on a bound socket between enter and exit.

    Exit: accept nothing new, close idle connections, let requests in flight finish for at most `drain` seconds, then
    cancel them.
    """

    def __init__(self, app: Any, listening: socket.socket, *, keep_alive: float, drain: float) -> None:
        self.port: int = listening.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=max(1, round(keep_alive)),
            timeout_graceful_shutdown=max(1, round(drain)),
        )
        self._listening = listening
        self._server = _Embedded(config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve([self._listening]), name="http-server")
        started = asyncio.create_task(self._server.up.wait())
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._task.done():
            await self._task
            raise ConfigError("the HTTP server ended at its start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        # What the drain gave up must not go on with parts that are about to be stopped.
        left = list(self._server.server_state.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def hurry(self) -> None:
        """Wait for no request any longer."""
        self._server.should_exit = self._server.force_exit = True

    async def ended(self) -> None:
        """Return when the server is over, which it is before its time only if it failed; raises what it failed with."""
        if self._task is not None:
            await asyncio.shield(self._task)


class _Embedded(uvicorn.Server):
    """uvicorn's server, where signals belong to the program around it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for ever for the rest of a head, however long it gets."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._forget_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._head_bytes = 0


__all__ = ["BACKLOG", "HEAD_TIMEOUT", "MAX_HEAD", "Server", "bind"]
