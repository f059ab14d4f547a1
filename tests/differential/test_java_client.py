"""Java's own HTTP client, which offers to go on in HTTP/2 with its requests over plain HTTP, also with a POST."""

import asyncio
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backstay.discovery import StaticRegistry
from backstay.gateway import Gateway, RouteTable, read_definition
from backstay.http import HttpReply, HttpRequest, HttpServer
from backstay.service.server import Server, bind

PROGRAM = Path(__file__).with_name("Offers.java")
BODY = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
ROUTES = """
spring.cloud.gateway.routes:
  - id: all
    uri: lb://app
    metadata: {public: true}
    predicates: [Path=/**]
"""
ASKED = [("POST", "/", BODY), ("GET", "/", b""), ("POST", "/", BODY)]

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="Java's HTTP client needs Java")


class Seen:
    """Answers with the length of the body, and keeps what was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.offers: list[bool] = []

    def _keep(self, method: str, path: str, body: bytes, offer: bool) -> bytes:
        self.requests.append((method, path, body))
        self.offers.append(offer)
        return b"%d bytes" % len(body)

    def handle(self, request: HttpRequest) -> HttpReply:
        offer = any(request.headers.get(name) is not None for name in ("upgrade", "http2-settings"))
        return HttpReply(200, self._keep(request.method, request.path, request.body, offer))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        names = {name for name, _ in scope["headers"]}
        answer = self._keep(scope["method"], scope["path"], body, bool(names & {b"upgrade", b"http2-settings"}))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def routes() -> RouteTable:
    return RouteTable(read_definition(ROUTES, {}))


async def java(*urls: str) -> list[str]:
    """What the program prints."""
    options = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m")
    process = await asyncio.create_subprocess_exec(
        "java", *options, str(PROGRAM), *urls, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(100):
            printed, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()[-2000:]
    return printed.decode().splitlines()


async def test_javas_offer_of_http_2_is_ignored() -> None:
    """Gateway, small server and service answer each request over HTTP/1.1, with its body; no offer passes on."""
    behind, small, service = Seen(), Seen(), Seen()
    with closing(bind("127.0.0.1", 0)) as listening:
        async with (
            HttpServer(behind.handle) as upstream,
            Gateway(routes(), StaticRegistry({"app": [f"127.0.0.1:{upstream.port}"]})) as gateway,
            HttpServer(small.handle) as server,
            Server(service.app, listening, keep_alive=30.0, drain=5.0) as kit,
        ):
            printed = await java(*(f"http://127.0.0.1:{each.port}/" for each in (gateway, server, kit)))

    assert printed == [f"200 HTTP_1_1 {len(body)} bytes" for _, _, body in ASKED] * 3
    assert [behind.requests, small.requests, service.requests] == [ASKED] * 3
    assert (behind.offers, small.offers[0], service.offers[0]) == ([False] * 3, True, True)
