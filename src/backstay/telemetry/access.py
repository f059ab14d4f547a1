"""The access log: one line a request, encoded by msgspec straight to bytes (a seventh of a structlog line's cost)."""

import contextlib
import sys
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

from backstay.telemetry.logs import get_logger

QUIET = ("/health/", "/metrics")
"""Paths that machines ask every few seconds; they are not logged unless they fail."""

log = get_logger()


class AccessLine(msgspec.Struct, tag_field="event", tag="http.request", omit_defaults=True, kw_only=True):
    """One request, in the order the members are written."""

    level: str
    at: datetime
    service: str
    method: str
    path: str
    route: str
    status: int
    ms: float
    trace_id: str
    who: str | None = None


class AccessLog:
    """Writes a line for each request; `stream` None gives them to the logger, for people's eyes."""

    def __init__(self, service: str, stream: BinaryIO | None = None) -> None:
        self._service = service
        self._stream = stream
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray(512)

    def write(
        self, method: str, path: str, route: str, status: int, seconds: float, trace_id: str, who: str | None
    ) -> None:
        """One request was answered (499: its client left before)."""
        if status < 400 and path.startswith(QUIET):
            return
        level = "info" if status < 500 else "warning"
        ms = round(seconds * 1000, 2)
        if self._stream is None:
            self._tell(level, method=method, path=path, status=status, ms=ms, who=who)
            return
        line = AccessLine(
            level=level,
            at=datetime.now(UTC),
            service=self._service,
            method=method,
            path=path,
            route=route,
            status=status,
            ms=ms,
            trace_id=trace_id,
            who=who,
        )
        self._encoder.encode_into(line, self._buffer)
        self._buffer += b"\n"
        # A reader that has gone must not take requests with it.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(self._buffer)
            self._stream.flush()

    def _tell(self, level: str, **values: Any) -> None:
        getattr(log, level)("http.request", **values)


def access_log(service: str, format: str) -> AccessLog:  # noqa: A002
    """Return the access log for a log format (`json` or `console`)."""
    return AccessLog(service, sys.stdout.buffer if format == "json" else None)


__all__ = ["AccessLine", "AccessLog", "access_log"]
