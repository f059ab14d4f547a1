"""A small HTTP/1.1 server for lean parts: whole requests in, whole answers out, one at a time per connection.

It speaks plain HTTP on a socket of its own and knows no routes: the handler gets every request. A handler that raises
is a 500; its error is logged, never shown.
"""

from types import TracebackType
from typing import Self

from backstay.http.application import FunctionExchange, Handler, reply_bytes
from backstay.http.errors import FramingError
from backstay.http.framing import Limits, RequestHead
from backstay.http.inbound import Exchange, InboundConnection
from backstay.http.listener import Bounds, Listener, ListenerStatistics
from backstay.http.phases import Timeouts
from backstay.http.problems import malformed

HEAD_SECONDS = 10.0  # for the head of a request
IDLE_SECONDS = 60.0  # between requests
DRAIN_SECONDS = 10.0  # for requests in flight at the end
PER_ADDRESS = 1000  # connections of one client address


class HttpServer:
    """Serves `handler` on `host:port`; port 0 takes a free one, which `port` holds after entering.

    Leaving closes in order: no new connections; idle connections close; requests in flight finish (at most
    `drain` seconds); what is left is cut. Leaving twice is harmless.
    """

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        limits: Limits | None = None,
        head_timeout: float = HEAD_SECONDS,
        idle_timeout: float = IDLE_SECONDS,
        timeouts: Timeouts | None = None,
        bounds: Bounds | None = None,
        drain: float = DRAIN_SECONDS,
    ) -> None:
        """`timeouts` replaces what `head_timeout` and `idle_timeout` make: an answer isn't held longer than idling."""
        self.handler = handler
        self.host = host
        self.port = port
        self.requests = 0
        plain = Timeouts(head=head_timeout, idle=idle_timeout, stall=min(idle_timeout, Timeouts().stall))
        self.listener = Listener(
            lambda: _Connection(self),
            limits=limits or Limits(),
            timeouts=timeouts or plain,
            bounds=bounds or Bounds(per_address=PER_ADDRESS),
        )
        self._drain = drain

    async def __aenter__(self) -> Self:
        self.port = await self.listener.listen(self.host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.listener.stop():
            await self.listener.finished(self._drain)
            await self.listener.abort()
            await self.listener.cancel()

    def statistics(self) -> ListenerStatistics:
        """Connections now, and those turned away."""
        return self.listener.statistics()

    @property
    def _connections(self) -> set[InboundConnection]:
        return self.listener.connections


class _Connection(InboundConnection):
    """One client of the server."""

    __slots__ = ("_server",)

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.listener)
        self._server = server

    def new_exchange(self, head: RequestHead) -> Exchange:
        self.limit_body(head, self.limits.body)
        self._server.requests += 1
        return FunctionExchange(self, self._server.listener, head, self._server.handler)

    def refusal(self, error: FramingError) -> bytes:
        return reply_bytes(malformed(error), keep_alive=False, head_only=False)


__all__ = ["DRAIN_SECONDS", "HEAD_SECONDS", "IDLE_SECONDS", "PER_ADDRESS", "HttpServer"]
