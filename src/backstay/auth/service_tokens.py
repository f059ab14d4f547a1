"""A service's own token: fetched by client credentials, renewed at half of its life, kept while the issuer is down."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from backstay.auth.errors import TokenUnavailable
from backstay.auth.refresh import FETCH_TIMEOUT, Refreshed
from backstay.clock import SYSTEM, Clock

MAX_LIFE = 7 * 86_400.0  # seconds that an issuer may promise
MARGIN = 5.0  # seconds before its end at which a token is no longer handed out


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    ends_at: float


@dataclass(frozen=True, slots=True)
class ServiceTokenStatistics:
    """State of the kept token."""

    ready: bool
    age: float
    """Seconds since it was fetched; infinite before the first time."""
    failures: int
    """Fetches that failed in a row."""


class ServiceTokens:
    """The access token of one client for one audience.

    `fetch` posts a form (urlencoded) to the token endpoint and returns the JSON. `audience` is the service to be
    called: the token is accepted there and nowhere else.
    """

    def __init__(
        self,
        fetch: Callable[[bytes], Awaitable[bytes]],
        client_id: str,
        secret: str,
        scope: str | None = None,
        *,
        audience: str | None = None,
        timeout: float = FETCH_TIMEOUT,
        clock: Clock = SYSTEM,
    ) -> None:
        form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        more = {"scope": scope, "audience": audience}
        self._form = urlencode({**form, **{name: value for name, value in more.items() if value is not None}}).encode()
        self._fetch = fetch
        self._clock = clock
        self._kept = Refreshed(self._load, timeout=timeout, clock=clock)
        self.client_id = client_id
        self.audience = audience

    def __repr__(self) -> str:
        return f"ServiceTokens(client_id={self.client_id!r}, audience={self.audience!r}, secret=***)"

    async def __aenter__(self) -> Self:
        await self._kept.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._kept.__aexit__(kind, error, trace)

    @property
    def ready(self) -> bool:
        """True if a token is at hand."""
        kept = self._kept.value
        return kept is not None and self._clock.monotonic() < kept.ends_at

    def token(self) -> str:
        """Return the current token; raises `TokenUnavailable` if there is none that is still valid."""
        kept = self._kept.value
        if kept is None or self._clock.monotonic() >= kept.ends_at:
            reason = self._kept.last_error or "the issuer has not answered yet"
            raise TokenUnavailable(f"no service token for {self.client_id}: {reason}")
        return kept.value

    def renew(self) -> None:
        """Request another token now, because this one was refused."""
        self._kept.want()

    def statistics(self) -> ServiceTokenStatistics:
        """Return a snapshot of the state."""
        return ServiceTokenStatistics(self.ready, self._kept.age, self._kept.failures)

    async def _load(self) -> tuple[_Token, float]:
        asked_at = self._clock.monotonic()
        value, life = parse_token(await self._fetch(self._form))
        return _Token(value, asked_at + max(life - MARGIN, life / 2)), life / 2


def parse_token(answer: bytes) -> tuple[str, float]:
    """Return the access token and its lifetime in seconds (RFC 6749 §5.1); raises ValueError for anything else."""
    content = json.loads(answer)
    token = content.get("access_token") if isinstance(content, dict) else None
    life = content.get("expires_in") if isinstance(content, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
        raise ValueError("the answer holds no access_token")
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life < MAX_LIFE:
        raise ValueError("the answer holds no expires_in of a positive number of seconds")
    return token, float(life)
