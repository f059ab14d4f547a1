"""The tools of an attacker of the whole system."""

import asyncio
import base64
import json
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from tests.world import PASSWORD

from backstay.auth.signing import SigningKey
from shop.auth.providers import KeySafe


def claims(token: str) -> dict[str, object]:
    """What a token says."""
    return _segment(token, 1)


def header(token: str) -> dict[str, object]:
    """How a token is signed."""
    return _segment(token, 0)


def _segment(token: str, number: int) -> dict[str, object]:
    part = token.split(".")[number]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def encoded(value: object) -> str:
    """A segment of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def true_key(world) -> SigningKey:
    """Auth's own key, which a test may read: it holds the machine."""
    safe = KeySafe(world.home.secret("signing-keys"))
    async with world.database("auth") as book:
        row = await book.fetchrow("SELECT kid, sealed FROM signing_keys WHERE state = 'current'")
    return SigningKey.from_pem(safe.open(row["kid"], row["sealed"]))


async def raw(base: str, data: bytes, *, within: float = 20.0, pause: float = 0.0) -> bytes:
    """Bytes as they are, past any client's good manners; everything that comes back until the end or the time is over.

    `pause`: seconds between the head and the rest.
    """
    address = urlsplit(base)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        head, mark, rest = data.partition(b"\r\n\r\n")
        writer.write(head + mark)
        await asyncio.sleep(pause)
        writer.write(rest)
        answer = b""
        try:
            async with asyncio.timeout(within):
                while chunk := await reader.read(65536):
                    answer += chunk
        except (TimeoutError, ConnectionError):
            pass
        return answer
    finally:
        writer.transport.abort()


@pytest.fixture
def tools() -> SimpleNamespace:
    """All of these: a test can't import from here."""
    return SimpleNamespace(claims=claims, header=header, encoded=encoded, true_key=true_key, raw=raw, password=PASSWORD)
