"""A client for tests of a running service: JSON in and out, a token if wanted, and raw bytes that no client sends."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from backstay.http import HttpClient, HttpResponse

TIMEOUT = 10.0
"""Seconds for one exchange."""


class Reply:
    """An answer in a form that is easy to compare."""

    def __init__(self, response: HttpResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.body

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:300]!r}>"

    @property
    def json(self) -> Any:
        """The body as plain Python values."""
        return msgspec.json.decode(self.body)

    @property
    def slug(self) -> str:
        """The last part of a problem's type."""
        return str(self.json["type"]).rpartition(":")[2]

    @property
    def pointers(self) -> list[str]:
        """The fields that a problem names."""
        return [error["pointer"] for error in self.json.get("errors", [])]


class Api:
    """`Api(port, token=issuer.token())`; an async context manager."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", token: str | None = None) -> None:
        self.host = host
        self.port = port
        self.token = token
        self._http = HttpClient()

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.__aexit__(None, None, None)

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        token: str | None = "",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request; bytes go as they are, everything else as JSON. An empty `token` means the usual one."""
        sent = dict(headers or {})
        if (bearer := self.token if token == "" else token) is not None:
            sent.setdefault("authorization", f"Bearer {bearer}")
        if key is not None:
            sent["idempotency-key"] = key
        if body is not None:
            sent.setdefault("content-type", "application/json")
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        return Reply(
            await self._http.request(
                self.host, self.port, method, target, headers=list(sent.items()), body=data, timeout=TIMEOUT
            )
        )

    async def say(self, *pieces: bytes | float) -> bytes:
        """Write raw bytes, waiting so many seconds at a number, and read until the other side closes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            for piece in pieces:
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                else:
                    writer.write(piece)
                    await writer.drain()
            async with asyncio.timeout(TIMEOUT):
                return await reader.read()
        finally:
            writer.close()


__all__ = ["TIMEOUT", "Api", "Reply"]
