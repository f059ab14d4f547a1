"""The access log: one JSON line an exchange, gathered and written a few times a second."""

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import BinaryIO, Literal

import msgspec

FLUSH_SECONDS = 0.25
MAX_LINES = 2000  # gathered at most

Format = Literal["json", "console"]


class AccessLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One exchange, in the order the members are written."""

    level: str
    at: str
    service: str = msgspec.field(name="service")
    event: str
    method: str
    path: str
    route: str
    status: int
    ms: float
    upstream: str | None = None
    trace_id: str
    who: str | None = None
    peer: str


class AccessLog:
    """Gathers lines and writes them to `stream`; `close` writes what is left."""

    def __init__(self, stream: BinaryIO, *, service: str = "gateway", format: Format = "json") -> None:  # noqa: A002
        self._stream = stream
        self._service = service
        self._json = format == "json"
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self,
        *,
        method: str,
        path: str,
        route: str,
        status: int,
        seconds: float,
        upstream: str | None,
        trace_id: str,
        who: str | None,
        peer: str,
    ) -> None:
        """An exchange ended (499: its client left before)."""
        line = AccessLine(
            level="info" if status < 500 else "warning",
            at=_now(),
            service=self._service,
            event="gateway.request",
            method=method,
            path=path,
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
            upstream=upstream,
            trace_id=trace_id,
            who=who,
            peer=peer,
        )
        self._lines.append(self._encode(line) if self._json else _readable(line))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        elif len(self._lines) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._stream.write(b"\n".join(lines) + b"\n")
            self._stream.flush()

    close = flush


def _readable(line: AccessLine) -> bytes:
    arrow = f" → {line.upstream}" if line.upstream else ""
    return f"{line.at[11:23]} {line.status} {line.method} {line.path} {line.ms} ms{arrow}".encode()


def _now() -> str:
    now = time.time()
    return f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z"


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
