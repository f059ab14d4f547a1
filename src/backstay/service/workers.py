"""What one of several worker processes does for all of them.

A server such as uvicorn or Granian starts a service in several processes, and none of them knows of the others. The one
that holds a lock, on a file that all of them find, registers the service, consumes, relays and runs jobs; the others
answer requests only. The operating system frees the lock when its holder ends, however it ends: then another one takes
over within `POLL_INTERVAL`.
"""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.runtime.composition import Composition
from backstay.tasks import BackgroundTask, background
from backstay.telemetry.logs import get_logger

POLL_INTERVAL = 1.0
"""Seconds between two attempts of a worker to take the lock."""

log = get_logger()


class WorkerLock:
    """A lock that one process on this machine holds: of the workers of one service on one port."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """`folder` is one of this user's own below the system's folder for temporary files, if not given."""
        self.path = (folder or Path(tempfile.gettempdir()) / f"backstay-{os.getuid()}") / f"{name}.lock"
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock unless another process holds it; returns whether this one does. Raises ConfigError."""
        if self._file is not None:
            return True
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.parent.stat().st_uid != os.getuid():
                raise ConfigError(f"{self.path.parent} belongs to another user; remove it, or set TMPDIR")
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.path}: the workers' lock can't be opened ({error}); set TMPDIR") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Free the lock, if it is held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class OncePerHost:
    """Parts that run in the worker with the lock only; an async context manager."""

    def __init__(
        self, lock: WorkerLock | None, start: Callable[[Composition], Awaitable[None]], *, clock: Clock = SYSTEM
    ) -> None:
        """`lock` None: this process is the only worker."""
        self._lock = lock
        self._start = start
        self._clock = clock
        self._parts: Composition | None = None
        self._standby: BackgroundTask | None = None

    @property
    def is_primary(self) -> bool:
        """Whether the parts run in this process."""
        return self._parts is not None

    async def __aenter__(self) -> Self:
        if self._lock is None or self._lock.acquire():
            await self._take_over()
        else:
            self._standby = background(partial(self._stand_by, self._lock), name="standby")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._standby is not None:
            await self._standby.stop()
        await self._give_up()

    async def _stand_by(self, lock: WorkerLock) -> None:
        while not lock.acquire():
            await self._clock.sleep(POLL_INTERVAL)
        await self._take_over()
        await asyncio.Event().wait()

    async def _take_over(self) -> None:
        self._parts = Composition()
        try:
            await self._parts.__aenter__()
            await self._start(self._parts)
        except BaseException:
            await self._give_up()
            raise
        log.info("service.worker_became_primary", pid=os.getpid())

    async def _give_up(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.__aexit__(None, None, None)
        if self._lock is not None:
            self._lock.release()


__all__ = ["POLL_INTERVAL", "OncePerHost", "WorkerLock"]
