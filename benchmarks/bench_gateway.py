"""CPU per request of the gateway, beside nginx where it is installed: plain, and with token check and rate limit.

Each proxy is one process and is measured by its own user and system time, in turns, so that a slow moment of the
machine meets all of them. Twelve request headers, 64 connections, a 100-byte answer, all features on.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import uvloop

from backstay.auth import StaticKeys, TokenVerifier
from backstay.discovery import StaticRegistry
from backstay.gateway import AccessLog, Gateway, RouteTable, read_definition
from backstay.testing.issuer import TokenIssuer

CONNECTIONS = 64
REQUESTS = 8_000  # per turn
TURNS = 7  # the first one warms up
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n" + b'"' + b"x" * 98 + b'"'
HEADERS = (
    "Host: localhost:8080\r\nUser-Agent: bench/1.0\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"
    "Accept-Language: en\r\nCache-Control: no-cache\r\nCookie: a=b\r\n"
) + "".join(f"X-Header-{i}: value-{i}-abcdefghijk\r\n" for i in range(4))
LIMIT = "[{name: RequestRateLimiter, args: {replenishRate: 10000000, burstCapacity: 10000000}}]"
NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log combined buffer=64k flush=1s;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 128; }}
  server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000000; location / {{
    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr; }} }}
}}
"""


class Upstream(asyncio.Protocol):
    """Answers every head that arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self.transport.write(ANSWER * data.count(b"\r\n\r\n"))  # type: ignore[attr-defined]


class Client(asyncio.Protocol):
    """Asks again as soon as it has its answer, until the turn has had its requests."""

    def __init__(self, request: bytes, left: list[int], done: asyncio.Event) -> None:
        self.request, self.left, self.done = request, left, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if b"HTTP/1.1 200" in data:
            self._ask()

    def _ask(self) -> None:
        self.left[0] -= 1
        if self.left[0] >= 0:
            self.transport.write(self.request)  # type: ignore[attr-defined]
        else:
            self.done.set()


async def serve_upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


async def serve_gateway(port: int, upstream: int, token_file: str) -> None:
    issuer = TokenIssuer(audience="shop")
    guarded = bool(token_file)
    route = f"metadata: {{scope: 'orders:read'}}, filters: {LIMIT}" if guarded else "metadata: {public: true}"
    text = f"spring.cloud.gateway.routes: [{{id: a, uri: 'lb://app', predicates: ['Path=/api/**'], {route}}}]"
    if guarded:
        Path(token_file).write_text(issuer.token(), encoding="ascii")
    with open(os.devnull, "wb") as log:
        gateway = Gateway(
            RouteTable(read_definition(text, {})),
            StaticRegistry({"app": [f"127.0.0.1:{upstream}"]}),
            verifier=TokenVerifier(issuer.issuer, "shop", StaticKeys(issuer.jwks)),
            port=port,
            access_log=AccessLog(log),
        )
        async with gateway:
            await asyncio.Event().wait()


async def turn(port: int, pid: int, token: str) -> tuple[float, float]:
    """CPU microseconds per request, requests per second."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else "X-Header-9: value-9\r\n"
    request = f"GET /api/v1/orders/1?q=2 HTTP/1.1\r\n{HEADERS}{authorization}\r\n".encode()
    left, done, loop = [REQUESTS], asyncio.Event(), asyncio.get_running_loop()
    before, started = cpu(pid), time.perf_counter()
    made = [
        await loop.create_connection(lambda: Client(request, left, done), "127.0.0.1", port) for _ in range(CONNECTIONS)
    ]
    await done.wait()
    used, seconds = cpu(pid) - before, time.perf_counter() - started
    for transport, _ in made:
        transport.close()
    return used / REQUESTS * 1e6, REQUESTS / seconds


def cpu(pid: int) -> float:
    """User and system seconds of a process and its children."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children())]
    return float(sum(each.user + each.system for each in times))


@contextlib.contextmanager
def process(port: int, *argv: str) -> Iterator[int]:
    """A process that listens on `port`."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as started:
        try:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield started.pid
        finally:
            started.terminate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def compare(proxies: dict[str, tuple[int, int, str]]) -> None:
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in proxies}
    for number in range(TURNS):
        for name, (port, pid, token) in proxies.items():
            measured = await turn(port, pid, token)
            if number:
                results[name].append(measured)
    print(f"{'proxy':<28}{'CPU µs/request':>15}{'requests/s':>12}")
    for name, turns in results.items():
        micros, rate = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"{name:<28}{micros:>15.1f}{rate:>12,.0f}")


def main() -> None:
    me = (sys.executable, __file__)
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        upstream, plain, full, other = (free_port() for _ in range(4))
        token = str(Path(folder) / "token")
        stack.enter_context(process(upstream, *me, "upstream", str(upstream)))
        proxies = {}
        if nginx := shutil.which("nginx"):
            config = Path(folder) / "nginx.conf"
            config.write_text(NGINX.format(folder=folder, upstream=upstream, port=other))
            proxies["nginx"] = (other, stack.enter_context(process(other, nginx, "-c", str(config))), "")
        else:
            print("nginx isn't installed here: the budget (2.0 × nginx plain, 2.5 × with token) can't be checked")
        started = stack.enter_context(process(plain, *me, "gateway", str(plain), str(upstream), ""))
        proxies["gateway, plain"] = (plain, started, "")
        started = stack.enter_context(process(full, *me, "gateway", str(full), str(upstream), token))
        proxies["gateway, token and limit"] = (full, started, Path(token).read_text())
        uvloop.run(compare(proxies))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["upstream", port]:
            uvloop.run(serve_upstream(int(port)))
        case ["gateway", port, upstream, token_file]:
            uvloop.run(serve_gateway(int(port), int(upstream), token_file))
        case _:
            main()
