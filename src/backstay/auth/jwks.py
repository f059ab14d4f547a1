"""The issuer's key set, fetched in the background and kept while the issuer is down, but not for ever."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from joserfc.jwk import ECKey

from backstay.auth.errors import KeysUnavailable
from backstay.auth.keys import Keys, parse_jwks
from backstay.auth.refresh import FETCH_TIMEOUT, Refreshed
from backstay.clock import SYSTEM, Clock

REFRESH = 60.0  # seconds between fetches
REFETCH = 10.0  # seconds between fetches that unknown key ids ask for
MAX_STALENESS = 24 * 3600.0  # seconds a key set is honoured while the issuer can't be reached


@dataclass(frozen=True, slots=True)
class JwksStatistics:
    """State of the kept key set."""

    ready: bool
    keys: int
    age: float
    """Seconds since it was fetched; infinite before the first time."""
    failures: int
    """Fetches that failed in a row."""


class JwksCache:
    """A `KeySource` behind a fetch function that returns the JWKS document."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        *,
        refresh: float = REFRESH,
        refetch: float = REFETCH,
        max_staleness: float = MAX_STALENESS,
        timeout: float = FETCH_TIMEOUT,
        clock: Clock = SYSTEM,
    ) -> None:
        self._fetch = fetch
        self._refresh = refresh
        self._refetch = refetch
        self._max_staleness = max_staleness
        self._document: bytes | None = None
        self._keys: Keys = {}
        self._kept = Refreshed(self._load, timeout=timeout, clock=clock)
        self.version = 0

    async def __aenter__(self) -> Self:
        await self._kept.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._kept.__aexit__(kind, error, trace)

    @property
    def ready(self) -> bool:
        """True if there is a key set that may be used."""
        return self._kept.age <= self._max_staleness

    @property
    def problem(self) -> str | None:
        """The error of the last fetch; None after a success."""
        return self._kept.last_error

    def statistics(self) -> JwksStatistics:
        """Return a snapshot of the state."""
        return JwksStatistics(self.ready, len(self._keys), self._kept.age, self._kept.failures)

    def find(self, kid: str) -> ECKey | None:
        """Return the key of that id; an unknown id starts a fetch, at most one per `refetch` seconds."""
        age = self._kept.age
        if age > self._max_staleness:
            raise KeysUnavailable(self._kept.last_error or "the key set was not fetched yet")
        key = self._keys.get(kid)
        if key is None and age >= self._refetch and not self._kept.failures:
            self._kept.want()
        return key

    async def _load(self) -> tuple[bytes, float]:
        document = await self._fetch()
        if document != self._document:
            self._keys = parse_jwks(document)
            self._document = document
            self.version += 1
        return document, self._refresh
