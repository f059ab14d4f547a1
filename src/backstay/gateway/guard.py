"""Admission: token check, revocations, and limits per caller. Services check the token again themselves."""

import re
from collections.abc import Mapping, Sequence

from backstay.auth import InvalidToken, KeysUnavailable, Principal, TokenVerifier
from backstay.gateway import problems
from backstay.gateway.filters import RateLimit
from backstay.gateway.limits import Decision, TokenBuckets
from backstay.gateway.revocations import DenyList
from backstay.gateway.routes import Route

_LOGGABLE = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
FAILURES_PER_SECOND = 5.0  # invalid tokens of one address, each costing a signature check
FAILURE_BURST = 50.0


class Guard:
    """Decides about a request; raises Refusal."""

    def __init__(
        self,
        verifier: TokenVerifier | None,
        denied: DenyList,
        *,
        retry_after: int = 1,
        addresses: TokenBuckets | None = None,
    ) -> None:
        """Create it; `addresses` limits each client address before anything else is checked."""
        self.verifier = verifier
        self.denied = denied
        self.failures = TokenBuckets(FAILURES_PER_SECOND, FAILURE_BURST)
        self.addresses = addresses
        self._retry_after = retry_after

    def limit_address(self, client: str, now: float) -> None:
        """Take a request from its address; raises Refusal."""
        if self.addresses is not None and not (decision := self.addresses.take(client, now)).allowed:
            raise problems.too_many(decision.retry_after, ())

    def principal(
        self, route: Route, headers: Mapping[bytes, bytes], client: str, now: float, *, exempt: bool = False
    ) -> Principal | None:
        """Return the principal of the token; None on a public route, where no token is read.

        `exempt`: many clients come from this address, so that one without a token doesn't count against it.
        """
        if route.public:
            return None
        given = headers.get(b"authorization")
        if given is None or given[:7].lower() != b"bearer ":
            if not exempt and not (decision := self.failures.take(client, now)).allowed:
                raise problems.too_many(decision.retry_after, ())
            raise problems.token_missing()
        if self.verifier is None:
            raise problems.keys_unavailable(self._retry_after)
        if self.failures.exhausted(client, now):
            raise problems.too_many(self.failures.take(client, now).retry_after, ())
        try:
            principal = self.verifier.verify(given[7:].strip())
        except InvalidToken as error:
            self.failures.take(client, now)
            raise problems.unauthorized(error.reason) from None
        except KeysUnavailable as error:
            raise problems.keys_unavailable(max(self._retry_after, round(error.retry_after))) from None
        if principal.session in self.denied:
            raise problems.unauthorized("the session has ended")
        if route.scope is not None and route.scope not in principal.scopes:
            raise problems.forbidden(route.scope)
        return principal

    def limit(self, limits: Sequence[RateLimit], user: str | None, client: str, now: float) -> bytes:
        """Take from the caller's bucket; return the header lines with what is left."""
        lines = b""
        for limit in limits:
            key = f"u:{user}" if user is not None and limit.by_user else f"a:{client}"
            decision = limit.buckets.take(key, now)
            if not decision.allowed:
                raise problems.too_many(decision.retry_after, limit_headers(limit.buckets, decision))
            lines = b"x-ratelimit-remaining: %d\r\n%b" % (decision.remaining, _fixed(limit.buckets))
        return lines


def user_line(principal: Principal | None) -> bytes:
    """Return the header that names the user to upstream logs. It proves nothing and must not be relied on."""
    if principal is None or not _LOGGABLE.fullmatch(principal.id):
        return b""
    return b"x-user-id: %b\r\n" % principal.id.encode()


def limit_headers(buckets: TokenBuckets, decision: Decision) -> list[tuple[str, str]]:
    """Return the limit and what is left of it."""
    return [
        ("X-RateLimit-Remaining", str(decision.remaining)),
        ("X-RateLimit-Burst-Capacity", f"{buckets.burst:.10g}"),
        ("X-RateLimit-Replenish-Rate", f"{buckets.rate:.10g}"),
    ]


def _fixed(buckets: TokenBuckets) -> bytes:
    return b"x-ratelimit-burst-capacity: %.10g\r\nx-ratelimit-replenish-rate: %.10g\r\n" % (buckets.burst, buckets.rate)
