"""The issuer's fixed addresses."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.certificates import make_certificates

from backstay.auth import EndpointsUnavailable, FixedEndpoints, parse_endpoints, parse_jwks
from backstay.errors import ConfigError
from backstay.http import HttpClient, HttpReply, HttpRequest, HttpServer
from backstay.testing.issuer import TokenIssuer


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


class Counting:
    """Answers the same to everybody, and counts."""

    def __init__(self, status: int = 200, body: bytes = b"good", location: str = "") -> None:
        self.reply = HttpReply(status, body, headers=[("location", location)] if location else [])
        self.count = 0

    def __call__(self, request: HttpRequest) -> HttpReply:
        self.count += 1
        return self.reply


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        ("lb://auth/.well-known/jwks.json", "looked up in the registry"),
        ("http://a/jwks,lb://auth/jwks", "looked up in the registry"),
        ("", "at least one address"),
        (" , ", "at least one address"),
        ("auth:80/jwks", r"not http\(s\)"),
        ("file:///etc/passwd", r"not http\(s\)"),
        ("http://user:secret@auth/jwks", r"not http\(s\)"),
        ("http:///jwks", r"not http\(s\)"),
        ("http://auth:x/jwks", "could not be cast"),
        ("http://auth/a b", "printable ASCII"),
    ],
)
def test_what_is_no_fixed_address_is_refused(urls: str, reason: str) -> None:
    """At start, with the setting's name."""
    with pytest.raises(ConfigError, match=rf"^JWKS_URL=.*{reason}"):
        FixedEndpoints(urls, HttpClient(), variable="JWKS_URL")


def test_addresses_are_read_with_their_defaults() -> None:
    """Ports, paths, IPv6."""
    assert list(map(str, parse_endpoints("http://auth, https://[::1]/jwks?x=1"))) == [
        "http://auth:80/",
        "https://[::1]:443/jwks?x=1",
    ]


async def test_the_next_address_is_asked_when_one_is_of_no_use(http: HttpClient) -> None:
    """Gone, failing, refusing, redirecting, or with content that is no key set; then the good one is asked first."""
    issuer = TokenIssuer(audience="shop")
    good, failing = Counting(body=issuer.jwks), Counting(503)
    other, moved = Counting(body=b'{"keys": []}'), Counting(302, location="/elsewhere")
    async with (
        HttpServer(failing, "127.0.0.1", 0) as a,
        HttpServer(other, "127.0.0.1", 0) as b,
        HttpServer(moved, "127.0.0.1", 0) as c,
        HttpServer(good, "127.0.0.1", 0) as d,
    ):
        urls = ["http://127.0.0.1:1/", *(f"http://127.0.0.1:{server.port}/jwks" for server in (a, b, c, d))]
        endpoints = FixedEndpoints(",".join(urls), http, variable="JWKS_URL", check=parse_jwks)

        assert await endpoints.get() == issuer.jwks
        assert await endpoints.get() == issuer.jwks

    assert (failing.count, other.count, moved.count, good.count) == (1, 1, 1, 2)


async def test_an_address_that_never_answers_does_not_hold_up_the_next(http: HttpClient) -> None:
    """It has its share of the time, and no more."""
    good = Counting()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with HttpServer(good, "127.0.0.1", 0) as server:
            urls = f"http://127.0.0.1:{silent.getsockname()[1]}/,http://127.0.0.1:{server.port}/"
            endpoints = FixedEndpoints(urls, http, variable="TOKEN_URL", timeout=0.2)
            async with asyncio.timeout(endpoints.timeout):
                assert await endpoints.post(b"a=b") == b"good"


async def test_when_none_answers_each_is_named(http: HttpClient) -> None:
    """With its own reason, and never with what was sent."""
    async with HttpServer(Counting(401), "127.0.0.1", 0) as server:
        urls = f"http://127.0.0.1:1/token,http://127.0.0.1:{server.port}/token"
        with pytest.raises(EndpointsUnavailable, match=r"127\.0\.0\.1:1/token: .*; http.*: status 401") as error:
            await FixedEndpoints(urls, http, variable="TOKEN_URL").post(b"client_secret=hunter2")

    assert "hunter2" not in str(error.value)


async def test_tls_is_verified(http: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of an authority that isn't trusted is none."""
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
        endpoints = FixedEndpoints(url, http, variable="JWKS_URL", timeout=10.0)
        with pytest.raises(EndpointsUnavailable, match="certificate verify failed"):
            await endpoints.get()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        assert await endpoints.get() == b"good"
