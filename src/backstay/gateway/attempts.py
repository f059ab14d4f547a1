"""The attempts of one exchange on a route with a circuit breaker, a time limiter, a retry: retry ( breaker ( call )).

What a breaker is told: no answer, and an answer whose status is among the route's `statusCodes`, are failures; every
other answer is a success, so no client can open a breaker by what it asks for. Nor by how it asks: the time of a call
counts from the whole request on, and a call that ends because its client left, or allowed less time than the route,
is a `DeadlineTimeout`: it gives its permit back, unless it was slow already (`verdict`). So does an answer that says
`x-do-not-retry`: who sheds a part of its load is there for the rest, and counted, that part would become all of it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from time import monotonic
from typing import Protocol

from backstay import resilience as r
from backstay.discovery import NoInstance
from backstay.errors import ConfigError
from backstay.gateway import problems
from backstay.gateway.headers import DEADLINE_HEADER
from backstay.gateway.problems import Refusal
from backstay.gateway.protections import RetryFilter
from backstay.gateway.routes import Route
from backstay.http.connection import ResponseHead
from backstay.http.errors import HttpError
from backstay.http.framing import RequestHead

RETRY_HEADER = r.RETRY_HEADER.encode()
STOP_LINE = r.STOP_HEADER.encode() + b": 1\r\n"
USABLE = ("circuitbreaker", "timelimiter")
_DEADLINE = re.compile(rb"\r\n" + DEADLINE_HEADER + rb": \d+")
_ATTEMPT = re.compile(rb"\r\n" + RETRY_HEADER + rb":[^\r]*")


class Answered(HttpError):
    """The service answered with a status that the route takes for a failure."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(f"the service answered {head.status}")
        fields = dict(head.fields)
        given = fields.get(b"retry-after", b"").strip()
        self.status = head.status
        self.do_not_retry = r.STOP_HEADER.encode() in fields
        self.retry_after = float(given) if given.isdigit() else 0.0


class Sent(Protocol):
    """The request as it is sent, as far as attempts change it."""

    after_host: bytes
    response_lines: bytes
    response_timeout: float


@dataclass(frozen=True, slots=True)
class Protection:
    """The policies of one route."""

    breaker: r.CircuitBreaker | None
    limiter: r.TimeLimiter | None
    retry: r.Retry | None
    failing: frozenset[int]
    """Statuses that the breaker counts as failures."""
    repeated: frozenset[int]
    """Statuses that are worth another attempt."""
    methods: frozenset[bytes]
    """Methods that may be repeated."""
    fallback: str | None
    """Path of the route that answers instead."""
    retry_timeout: float
    patience: float
    """Seconds that the route itself allows for an answer."""


class Attempts:
    """The attempts of one exchange. Each is begun, and then ends once: answered, failed, timed out or abandoned."""

    __slots__ = (
        "_allowed",
        "_began",
        "_given",
        "_number",
        "_permit",
        "_protection",
        "_retry",
        "_seconds",
        "_sent",
        "fallback",
    )

    def __init__(
        self, protection: Protection, head: RequestHead, seconds: float, *, may_fall_back: bool, repeatable: bool
    ) -> None:
        self._protection = protection
        self._retry = protection.retry if repeatable and head.method in protection.methods else None
        self._given = r.attempt_of(head.index.get(RETRY_HEADER))
        self._number = 0
        self._permit: r.Permit | None = None
        self._sent = False
        self._began = monotonic()
        self._seconds = self._allowed = seconds
        self.fallback = protection.fallback if may_fall_back else None

    def begin(self, request: Sent) -> Refusal | None:
        """Make the next attempt, unless the breaker refuses; `request` gets the time and the number of this one."""
        self._number += 1
        self._sent = False
        protection, retry, number = self._protection, self._retry, self._number
        if retry is not None and number == 1 and retry.budget is not None:
            retry.budget.call()
        if number > 1 or protection.limiter is not None:
            self._limit(request)
        if protection.breaker is not None:
            try:
                self._permit = protection.breaker.permit()
            except r.CallNotPermitted as rejected:
                self._next(rejected, repeatable=False)
                return problems.circuit_open(protection.breaker.name, max(1, ceil(rejected.retry_after)))
        return None

    def sent(self) -> None:
        """The service has the whole request: from here on it is its time."""
        self._sent = True
        if self._permit is not None:
            self._permit.restart()

    def answered(self, head: ResponseHead, request: Sent, *, repeatable: bool) -> float | None:
        """The service has answered. The seconds until another attempt, or None: this answer is the outcome."""
        protection, status = self._protection, head.status
        if protection.limiter is not None:
            protection.limiter.successful += 1
        if status not in protection.failing and status not in protection.repeated:
            self._succeeded()
            return None
        error = Answered(head)
        if error.do_not_retry:  # it sheds load, as our own policies do: a refusal, which is no failure
            self._give_back()
        elif status in protection.failing:
            self._tell(error)
        if status not in protection.repeated:
            self._succeeded()
            return None
        self._tell(None)
        wait = self._next(error, repeatable=repeatable)
        if wait is None and self._number > 1 and not error.do_not_retry:
            request.response_lines += STOP_LINE  # we have repeated it already: who asks us need not multiply that
        return wait

    def replaces(self, status: int) -> bool:
        """Return whether the fallback answers instead of an answer with this status."""
        return self.fallback is not None and status in self._protection.failing

    def failed(self, error: Exception, request: Sent, *, repeatable: bool) -> float | None:
        """There is no answer. The seconds until another attempt, or None."""
        limiter = self._protection.limiter
        if isinstance(error, r.DeadlineTimeout):
            if limiter is not None:
                limiter.cut_short += 1
        elif limiter is not None and not isinstance(error, TimeoutError):
            limiter.failed += 1
        self._tell(error)
        wait = self._next(error, repeatable=repeatable)
        if wait is None and self._number > 1:
            request.response_lines += STOP_LINE
        return wait

    def timed_out(self) -> TimeoutError:
        """The time of this attempt is over; the error to fail with. A short deadline of the client's is no failure."""
        limiter = self._protection.limiter
        if limiter is not None and self._allowed >= limiter.timeout:
            return limiter.expire()
        if self._allowed < self._protection.patience:
            return r.DeadlineTimeout("the client's deadline passed before the service answered")
        return TimeoutError("the service didn't answer in time")

    def abandoned(self) -> None:
        """The exchange ended; if the service never answered, that is held against it only if it was slow."""
        self._tell(r.DeadlineTimeout("the client left before the service answered"))

    # -- how
    def _limit(self, request: Sent) -> None:
        """Limit this attempt to the rest of the request's time, or less, and send that deadline to the service."""
        limiter = self._protection.limiter
        left = self._seconds if self._number == 1 else self._began + self._seconds - monotonic()
        self._allowed = left if limiter is None else min(left, limiter.timeout)
        request.response_timeout = max(self._allowed, 0.0)
        if self._allowed < float("inf"):
            line = b"\r\n%b: %d" % (DEADLINE_HEADER, max(1, self._allowed * 1000))
            request.after_host = line + _DEADLINE.sub(b"", request.after_host)
        if self._number > 1:
            line = b"\r\n%b: %d" % (RETRY_HEADER, self._number)
            request.after_host = line + _ATTEMPT.sub(b"", request.after_host)

    def _succeeded(self) -> None:
        self._tell(None)
        retry = self._retry
        if retry is None:
            return
        if self._number == 1:
            retry.successful += 1
        else:
            retry.after_result(self._number, None)

    def _next(self, error: Exception, *, repeatable: bool) -> float | None:
        retry = self._retry
        if retry is None:
            return None
        left = self._began + min(self._seconds, self._protection.retry_timeout) - monotonic()
        with r.repeated_request(self._given if repeatable else 2), r.deadline(max(0.0, left)):
            try:
                return retry.after_error(self._number, error)
            except Exception:  # noqa: BLE001 - the error itself: there is no other attempt
                return None

    def _tell(self, error: Exception | None) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if not self._sent:  # what the client still sends is no time of the service
            permit.restart()
        if error is None:
            permit.success()
        else:
            permit.failure(error)

    def _give_back(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()


def protections(
    routes: Iterable[Route], policies: r.Registry, patience: Mapping[Route, float]
) -> dict[Route, Protection]:
    """Return the policies of the routes that have any; raises ConfigError."""
    budgets: dict[tuple[str, float, float], r.Budget] = {}
    found, wrong = {}, []
    for route in routes:
        breaker, retry = route.actions.breaker, route.actions.retry
        if breaker is None and retry is None:
            continue
        if breaker is not None:
            wrong += [
                f"{breaker.where}: resilience4j has a {kind} for {breaker.name!r}; a route heeds {' and '.join(USABLE)}"
                for kind in policies.configured(breaker.name)
                if kind not in USABLE
            ]
        found[route] = _protection(route, policies, budgets, patience[route])
    if wrong:
        raise ConfigError(wrong)
    return found


def _protection(
    route: Route, policies: r.Registry, budgets: dict[tuple[str, float, float], r.Budget], patience: float
) -> Protection:
    breaker, retry = route.actions.breaker, route.actions.retry
    limited = breaker is not None and "timelimiter" in policies.configured(breaker.name, by_default=True)
    return Protection(
        breaker=policies.circuit_breaker(breaker.name) if breaker is not None else None,
        limiter=policies.time_limiter(breaker.name) if breaker is not None and limited else None,
        retry=policies.add(_retry(route, retry, budgets)) if retry is not None else None,
        failing=breaker.statuses if breaker is not None else frozenset(),
        repeated=retry.statuses if retry is not None else frozenset(),
        methods=retry.methods if retry is not None else frozenset(),
        fallback=breaker.fallback if breaker is not None else None,
        retry_timeout=retry.timeout if retry is not None else 0.0,
        patience=patience,
    )


def _retry(route: Route, written: RetryFilter, budgets: dict[tuple[str, float, float], r.Budget]) -> r.Retry:
    """Return the retry of a route; the routes to one service share a budget."""
    key = str(route.target), written.budget_ratio, written.budget_minimum
    budget = budgets.get(key)
    if budget is None:
        budget = budgets[key] = r.Budget(written.budget_ratio, minimum=written.budget_minimum)
    return r.Retry(
        written.attempts,
        name=route.id,
        wait=written.wait,
        on=written.errors,
        on_if=lambda error: isinstance(error, Answered),
        ignore=NoInstance,  # all were looked at, and one waited for, already
        budget=budget,
    )
