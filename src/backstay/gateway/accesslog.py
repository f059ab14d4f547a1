"""The access log: one JSON line an exchange, gathered, and written a few times a second by a thread."""

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import BinaryIO, Literal

import msgspec

from backstay.gateway.metrics import NO_ROUTE
from backstay.gateway.plane import Outcome
from backstay.telemetry.lines import LineWriter

FLUSH_SECONDS = 0.25
MAX_LINES = 2000  # gathered at most

Format = Literal["json", "console"]


class AccessLine(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One exchange, in the order the members are written."""

    level: str
    at: str
    service: str
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
        self._writer = LineWriter(stream)
        self._service = service
        self._json = format == "json"
        self._encode = msgspec.json.Encoder().encode
        self._waiting: list[tuple[float, Outcome]] = []
        self._timer: asyncio.TimerHandle | None = None

    def write(self, outcome: Outcome) -> None:
        """Record an exchange that ended (499: its client left before)."""
        self._waiting.append((time.time(), outcome))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        elif len(self._waiting) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Pass the gathered lines to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            lines = [self._line(at, outcome) for at, outcome in waiting]
            self._writer.write(b"\n".join(lines) + b"\n")

    def close(self) -> None:
        """Write what is left, in a second at most."""
        self.flush()
        self._writer.close()

    @property
    def dropped(self) -> int:
        """Lines lost because the reader of the log stalled or is gone."""
        return self._writer.dropped

    def _line(self, at: float, outcome: Outcome) -> bytes:
        status, upstream = outcome.status, outcome.upstream
        line = AccessLine(
            level="info" if status < 500 else "warning",
            at=f"{_second(int(at))}.{int(at % 1 * 1000):03d}Z",
            service=self._service,
            event="gateway.request",
            method=outcome.head.method.decode(),
            path=outcome.head.target.partition(b"?")[0].decode("ascii"),
            route=outcome.route.id if outcome.route is not None else NO_ROUTE,
            status=status,
            ms=round(outcome.seconds * 1000, 2),
            upstream=None if upstream is None else f"{upstream[0]}:{upstream[1]}",
            trace_id=outcome.trace_id,
            who=outcome.user,
            peer=outcome.peer.address,
        )
        return self._encode(line) if self._json else _readable(line)


def _readable(line: AccessLine) -> bytes:
    arrow = f" → {line.upstream}" if line.upstream else ""
    return f"{line.at[11:23]} {line.status} {line.method} {line.path} {line.ms} ms{arrow}".encode()


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
