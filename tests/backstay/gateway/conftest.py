"""A gateway between real sockets: scripted upstreams behind it, a client that writes raw bytes before it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from backstay.auth import InvalidToken, KeysUnavailable, Principal
from backstay.discovery import StaticRegistry
from backstay.gateway import Gateway, GatewayOptions, RouteTable, read_definition
from backstay.testing import scaled

Behaviour = Callable[["Upstream", "Received", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]

PATIENCE = scaled(5.0)  # seconds a test waits for what must happen


@dataclass
class Received:
    """A request as an upstream got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)


def response(status: int = 200, body: bytes = b"", *lines: str) -> bytes:
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


async def answer_ok(upstream: "Upstream", request: Received, reader: Any, writer: asyncio.StreamWriter) -> None:
    writer.write(response(200, upstream.name.encode(), "X-Upstream: " + upstream.name))


@dataclass
class Upstream:
    """A server that behaves as it is told for each request; returning False hangs up."""

    name: str = "upstream"
    behave: Behaviour = answer_ok
    read_body: bool = True
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                request = await self._read(reader)
                self.requests.append(request)
                if await self.behave(self, request, reader, writer) is False:
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed.set()
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        request = Received(method, target, headers)
        if self.read_body:
            request.body = await read_body(reader, dict(headers))
        return request


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        return body
    return await reader.readexactly(int(headers.get("content-length", 0)))


@dataclass
class Answer:
    """An answer as a client got it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def problem(self) -> dict[str, Any]:
        assert self.get("content-type") == "application/problem+json"
        return json.loads(self.body)


class Wire:
    """A client connection that sends exactly the bytes it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
            status = int(first.split(" ")[1])
            known = dict(headers)
            if head_only or status in (204, 304) or status < 200:
                return Answer(status, headers, b"")
            if "content-length" not in known and "transfer-encoding" not in known:
                return Answer(status, headers, await self.reader.read())
            return Answer(status, headers, await read_body(self.reader, known))

    async def ended(self) -> bytes:
        """What comes until the connection ends."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()


class Tokens:
    """A verifier that knows a few tokens by heart."""

    def __init__(self) -> None:
        self.principals: dict[bytes, Principal] = {}
        self.available = True
        self.asked = 0

    def add(self, token: str, user: str, *scopes: str, session: str = "s1") -> None:
        self.principals[token.encode()] = Principal(
            user, frozenset({"customer"}), frozenset(scopes), session, "web", 4e9
        )

    def verify(self, token: bytes) -> Principal:
        self.asked += 1
        if not self.available:
            raise KeysUnavailable
        if token not in self.principals:
            raise InvalidToken("unknown")
        return self.principals[token]


class System:
    """Everything a test starts, closed at its end."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self.tokens.add("good", "ada", "orders:read")
        self.registry = StaticRegistry({})
        self._servers: list[asyncio.Server] = []
        self._held: list[socket.socket] = []
        self._gateways: list[Gateway] = []
        self._wires: list[Wire] = []

    async def upstream(
        self, behave: Behaviour = answer_ok, *, name: str = "upstream", read_body: bool = True
    ) -> Upstream:
        upstream = Upstream(name, behave, read_body)
        server = await asyncio.start_server(upstream.connected, "127.0.0.1", 0)
        self._servers.append(server)
        upstream.port = server.sockets[0].getsockname()[1]
        return upstream

    async def refused_address(self) -> str:
        """An address that refuses connections: bound, so that nothing else takes it meanwhile, and not listening."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self._held.append(held)
        return f"127.0.0.1:{held.getsockname()[1]}"

    async def gateway(self, routes: str, apps: dict[str, list[str]] | None = None, **options: Any) -> Gateway:
        """Routes as YAML list items below `routes:`."""
        text = "spring:\n  cloud:\n    gateway:\n      routes:\n" + routes
        self.registry.replace(apps or {})
        more = {key: options.pop(key) for key in ("denied", "access_log", "policies") if key in options}
        gateway = Gateway(
            RouteTable(read_definition(text, {})),
            self.registry,
            verifier=self.tokens,  # type: ignore[arg-type]
            options=GatewayOptions(**options),
            **more,
        )
        gateway.listener.ticker.tick = 0.02
        await gateway.__aenter__()
        self._gateways.append(gateway)
        return gateway

    async def simple(
        self, upstream: Upstream, metadata: str = "public: true", filters: str = "", **options: Any
    ) -> Gateway:
        """A gateway that sends everything to one upstream."""
        routes = f"""
        - id: all
          uri: lb://app
          metadata: {{{metadata}}}
          predicates: [Path=/**]
          filters: [{filters}]
"""
        return await self.gateway(routes, {"app": [upstream.address]}, **options)

    async def connect(self, gateway: Gateway) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", gateway.port, limit=2**20))
        self._wires.append(wire)
        return wire

    async def ask(
        self, gateway: Gateway, target: str = "/", *lines: str, method: str = "GET", body: bytes = b""
    ) -> Answer:
        """One request on a connection of its own."""
        wire = await self.connect(gateway)
        length = [f"Content-Length: {len(body)}"] if body else []
        head = [f"{method} {target} HTTP/1.1", "Host: shop.test", *length, *lines, "", ""]
        wire.send("\r\n".join(head).encode("latin-1") + body)
        answer = await wire.answer(head_only=method == "HEAD")
        wire.close()
        return answer

    async def close(self) -> None:
        for wire in self._wires:
            wire.close()
        for gateway in self._gateways:
            for client in list(gateway._clients):
                client.abort()
            await gateway.__aexit__(None, None, None)
        for server in self._servers:
            server.close()
        for held in self._held:
            held.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def running() -> AsyncIterator[System]:
    system = System()
    try:
        yield system
    finally:
        await system.close()


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with running() as found:
        yield found


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """Everything here must be true on asyncio's own loop and on uvloop, which differ in more than speed."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
