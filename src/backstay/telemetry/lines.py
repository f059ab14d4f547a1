"""Log lines written by a thread, through a bounded buffer: a reader that stalls costs lines, never the event loop."""

import os
import threading
from typing import BinaryIO

BUFFER_BYTES = 4 * 1024 * 1024
"""Held for a stalled reader; lines beyond it are dropped and counted."""
CLOSE_SECONDS = 1.0
"""For what is left to be written at the end."""


class LineWriter:
    """Writes whole lines to `stream` in order. `write` never blocks; `close` is harmless twice."""

    def __init__(self, stream: BinaryIO, *, limit: int = BUFFER_BYTES) -> None:
        self._stream = stream
        self._limit = limit
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._pending: list[bytes] = []
        self._size = 0  # bytes pending or being written
        self._closed = False
        self._thread: threading.Thread | None = None
        self._descriptor = _descriptor_of(stream)
        self.dropped = 0
        """Lines that found the buffer full, or their stream broken."""

    def write(self, lines: bytes) -> None:
        """Write lines, each with its end, when the stream takes them."""
        with self._lock:
            if self._closed or self._size + len(lines) > self._limit:
                self.dropped += lines.count(b"\n")
                return
            self._pending.append(lines)
            self._size += len(lines)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Take no more, and give what is left a moment to be written."""
        with self._lock:
            self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                lines, self._pending = b"".join(self._pending), []
                ended = self._closed
            if lines:
                self._write(lines)
            if ended:
                return

    def _write(self, lines: bytes) -> None:
        lost = 0
        try:
            if self._descriptor is None:
                self._stream.write(lines)
                self._stream.flush()
            else:
                _write_all(self._descriptor, lines)
        except (OSError, ValueError):  # a reader that has gone must not take requests with it
            lost = lines.count(b"\n")
        with self._lock:
            self._size -= len(lines)
            self.dropped += lost


def _descriptor_of(stream: BinaryIO) -> int | None:
    """Past the stream's own buffer, whose lock a stalled write would hold against the end of the process."""
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


__all__ = ["BUFFER_BYTES", "CLOSE_SECONDS", "LineWriter"]
