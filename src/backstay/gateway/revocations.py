"""Sessions that ended before their tokens did.

The list is fed by a stream of revocations that begins one token lifetime ago, so that nothing in force is missed. The
stream being away never stops the gateway: tokens are then honoured until they expire, and health says so.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

from backstay.clock import SYSTEM, Clock
from backstay.tasks import BackgroundTask, Backoff

TOKEN_LIFETIME = 300.0  # seconds
MARGIN = 60.0  # seconds: the verifier's leeway, and clocks that differ
RETRY = Backoff(first=1.0, cap=1.0, jitter=0.0)
"""Waits before a stream that broke is opened again."""
MAX_SESSIONS = 1_000_000

log = logging.getLogger("backstay.gateway.revocations")


class DenyList:
    """Session ids, each until a time (seconds since the epoch). Bounded: the ones that end first go first."""

    def __init__(self, *, max_sessions: int = MAX_SESSIONS, now: Callable[[], float] = time.time) -> None:
        self._until: dict[str, float] = {}
        self._max = max_sessions
        self._prune_at = 1024
        self._now = now

    def __contains__(self, session: object) -> bool:
        return session in self._until

    def __len__(self) -> int:
        return len(self._until)

    def add(self, session: str, until: float) -> None:
        """Refuse the session until then."""
        if until + MARGIN <= self._now():
            return
        if len(self._until) >= self._prune_at:
            self.prune()
        self._until[session] = max(until, self._until.get(session, 0.0))

    def prune(self) -> None:
        """Forget sessions whose last token has expired; if all are in force, those that end first."""
        oldest = self._now() - MARGIN
        self._until = {session: until for session, until in self._until.items() if until > oldest}
        if len(self._until) >= self._max:
            for session in sorted(self._until, key=self._until.__getitem__)[: self._max // 10 + 1]:
                del self._until[session]
        self._prune_at = min(self._max, max(1024, 2 * len(self._until)))


class RevocationStream(Protocol):
    """A stream of (session id, until when)."""

    @property
    def problem(self) -> str | None:
        """Why revocations may not arrive; None if all is well."""

    def __aiter__(self) -> AsyncIterator[tuple[str, float]]: ...

    async def aclose(self) -> None:
        """Stop following the stream."""


class RevocationFeed:
    """Keeps a deny list fed while it is entered; a stream that breaks is opened again."""

    def __init__(
        self,
        denied: DenyList,
        stream: Callable[[datetime], RevocationStream],
        *,
        lifetime: float = TOKEN_LIFETIME,
        clock: Clock = SYSTEM,
    ) -> None:
        self.denied = denied
        self._open = stream
        self._lifetime = lifetime
        self._clock = clock
        self._stream: RevocationStream | None = None
        self._task = BackgroundTask(self._run, name="gateway-revocations", clock=clock)
        self._broken: str | None = "not started"

    async def __aenter__(self) -> Self:
        self._task.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._task.stop()

    @property
    def problem(self) -> str | None:
        """Why revocations may not arrive; None if all is well."""
        return self._broken or (self._stream.problem if self._stream is not None else None)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
                self._broken = "the stream of revocations ended"
            except Exception as error:  # noqa: BLE001 - whatever breaks the stream, it is opened again
                self._broken = f"{type(error).__name__}: {error}"
            log.warning("gateway.revocations_away: %s", self._broken)
            await self._clock.sleep(RETRY.wait(1))

    async def _follow(self) -> None:
        stream = self._stream = self._open(datetime.now(UTC) - timedelta(seconds=self._lifetime + MARGIN))
        self._broken = None
        try:
            async for session, until in stream:
                self.denied.add(session, until)
        finally:
            self._stream = None
            await stream.aclose()
