"""A small client for whole requests and whole answers on the pool that the gateway uses.

A reused connection may have been closed by the server while the request was on its way. Then nothing came back, and the
request is sent once more on a fresh connection, if sending it twice cannot do harm: its method is idempotent or it
carries an Idempotency-Key.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from backstay.http.connection import Address, Connection, ResponseHead
from backstay.http.errors import BadResponse, ConnectionLost, HttpError, ResponseTimeout
from backstay.http.framing import IDEMPOTENT, field_line
from backstay.http.messages import Headers, HttpResponse
from backstay.http.pool import MAX_PER_ADDRESS, Pool, PoolStatistics

MAX_BODY = 8 * 1024 * 1024  # bytes
IDLE_SECONDS = 4.0


class HttpClient:
    """HTTP/1.1 without TLS to `host:port`. Safe to share; open it once and keep it.

    Entering is optional bookkeeping; leaving closes idle connections.
    """

    def __init__(self, *, idle: float = IDLE_SECONDS, max_per_address: int = MAX_PER_ADDRESS) -> None:
        self._pool = Pool(idle=idle, max_per_address=max_per_address)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    async def request(
        self,
        host: str,
        port: int,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        timeout: float,
        max_body: int = MAX_BODY,
    ) -> HttpResponse:
        """Send a request and return its whole answer, whatever its status, within `timeout` seconds in all.

        Raises ConnectFailed (nothing was sent), ConnectionLost, ResponseTimeout, BadResponse; ValueError for a
        request that can't be written.
        """
        address = (host, port)
        data = _request_bytes(address, method, target, headers, body)
        until = asyncio.get_running_loop().time() + timeout
        connection = self._pool.take(address)
        if connection is not None:
            try:
                return await self._exchange(connection, method, data, until, timeout, max_body)
            except ConnectionLost as lost:
                if lost.answered or not _replayable(method, headers):
                    raise
        connection = await self._connect(address, until, timeout)
        return await self._exchange(connection, method, data, until, timeout, max_body)

    def statistics(self) -> PoolStatistics:
        """Return the present and past numbers of connections."""
        return self._pool.statistics()

    async def _connect(self, address: Address, until: float, timeout: float) -> Connection:
        left = until - asyncio.get_running_loop().time()
        if left <= 0:
            raise ResponseTimeout(f"{address[0]}:{address[1]} didn't answer within {timeout:g} s")
        return await self._pool.connect(address, left)

    async def _exchange(
        self, connection: Connection, method: str, data: bytes, until: float, timeout: float, max_body: int
    ) -> HttpResponse:
        call = _Call(connection, max_body)
        connection.start(call, data, head_only=method == "HEAD", request_sent=True)
        timer = asyncio.get_running_loop().call_at(until, call.expire, timeout)
        try:
            return await call.answer
        except asyncio.CancelledError:
            call.give_up()
            raise
        finally:
            timer.cancel()


class _Call:
    """Gathers one answer."""

    __slots__ = ("_body", "_connection", "_head", "_max_body", "_size", "answer")

    def __init__(self, connection: Connection, max_body: int) -> None:
        self.answer: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._max_body = max_body
        self._head: ResponseHead | None = None
        self._body: list[bytes] = []
        self._size = 0

    def expire(self, timeout: float) -> None:
        host, port = self._connection.address
        self._refuse(ResponseTimeout(f"{host}:{port} didn't answer within {timeout:g} s"))

    def give_up(self) -> None:
        if self._connection.sink is self:
            self._connection.abandon()

    def response_interim(self, head: ResponseHead) -> None:
        pass

    def response_started(self, head: ResponseHead) -> None:
        self._head = head

    def response_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._max_body:
            self._body.append(data)
        else:
            self._refuse(BadResponse(f"the answer has more than {self._max_body} bytes"))

    def response_flush(self) -> None:
        pass

    def response_ended(self) -> None:
        if self.answer.done() or self._head is None:
            return
        fields = [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in self._head.fields]
        self.answer.set_result(HttpResponse(self._head.status, Headers(fields), b"".join(self._body)))

    def response_failed(self, error: HttpError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def upstream_writable(self, writable: bool) -> None:
        pass

    def _refuse(self, error: HttpError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        self.give_up()


def _replayable(method: str, headers: Sequence[tuple[str, str]]) -> bool:
    return method.encode() in IDEMPOTENT or any(name.lower() == "idempotency-key" for name, _ in headers)


def _request_bytes(
    address: Address, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes
) -> bytes:
    if not target.startswith("/") or not target.isascii() or any(c <= " " or c == "\x7f" for c in target):
        raise ValueError(f"a request target is an absolute path without spaces, not {target!r}")
    if not method.isascii() or not method.isalpha():
        raise ValueError(f"{method!r} isn't a method")
    names = {name.lower() for name, _ in headers}
    if not names.isdisjoint(("content-length", "transfer-encoding")):
        raise ValueError("Content-Length and Transfer-Encoding are set by the client itself")
    head = [f"{method} {target} HTTP/1.1\r\n".encode()]
    if "host" not in names:
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        head.append(field_line("host", f"{host}:{address[1]}"))
    head += [field_line(name, value) for name, value in headers]
    if body or method in ("POST", "PUT", "PATCH"):
        head.append(b"content-length: %d\r\n" % len(body))
    head.append(b"\r\n")
    head.append(body)
    return b"".join(head)
