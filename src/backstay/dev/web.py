"""A person's HTTP client, in code: JSON in and out, time taken, nothing hidden."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from backstay.http import HttpClient, HttpError

TIMEOUT = 15.0  # seconds, more than the gateway's own


class Refused(RuntimeError):
    """An answer that is not what the caller needs; the message holds its problem document."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `body` is its JSON (None without one), `took` in milliseconds."""

    status: int
    body: Any
    headers: Mapping[str, str]
    took: float

    def expect(self, *statuses: int) -> "Reply":
        """Itself when its status is one of these; Refused with its problem otherwise."""
        if self.status not in statuses:
            problem = self.body if isinstance(self.body, dict) else {}
            words = problem.get("detail") or problem.get("title") or self.body
            raise Refused(f"{self.status} instead of {' or '.join(map(str, statuses))}: {words}")
        return self


class Web:
    """Requests to one base address. HttpError and its kinds mean that no answer came."""

    def __init__(self, base: str, *, max_connections: int = 64) -> None:
        address = urlsplit(base)
        if address.scheme != "http" or not address.hostname:
            raise ValueError(f"an address here is http://host:port, not {base!r}")
        self.base, self._host, self._port = base.rstrip("/"), address.hostname, address.port or 80
        self._client = HttpClient(max_per_address=max_connections)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        key: str | None = None,
        accept: str = "application/json",
        timeout: float = TIMEOUT,
    ) -> Reply:
        """One request; `key` is its Idempotency-Key."""
        headers = [("accept", accept)]
        if body is not None:
            headers.append(("content-type", "application/json"))
        if token:
            headers.append(("authorization", f"Bearer {token}"))
        if key:
            headers.append(("idempotency-key", key))
        data = b"" if body is None else json.dumps(body).encode()
        started = time.perf_counter()
        answer = await self._client.request(
            self._host, self._port, method, path, headers=headers, body=data, timeout=timeout
        )
        took = (time.perf_counter() - started) * 1000
        return Reply(answer.status, _json(answer.body), {k.lower(): v for k, v in answer.headers.items()}, took)

    async def get(self, path: str, *, token: str | None = None) -> Any:
        """Return the JSON at a path; Refused unless it is 200."""
        return (await self.call("GET", path, token=token)).expect(200).body


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode(errors="replace")


__all__ = ["HttpError", "Refused", "Reply", "Web"]
