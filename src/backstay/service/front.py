"""The outermost ASGI application: trace, deadline, one access line, counts, and a problem for every error."""

from time import perf_counter

from backstay.asgi.access import GONE
from backstay.asgi.deadlines import DEADLINE_FIELD, RETRY_FIELD, passed, time_left
from backstay.asgi.replies import refusal
from backstay.asgi.shedding import overloaded
from backstay.asgi.trace import context_of
from backstay.asgi.types import Receive, Scope, Send
from backstay.resilience import attempt_of, deadline, repeated_request
from backstay.service.endpoint import Inbound, Limits
from backstay.service.requests import Disconnected
from backstay.service.router import Router
from backstay.service.statistics import RouteCounters, RouteStatistics
from backstay.telemetry.access import AccessLog
from backstay.telemetry.trace import use


class Front:
    """Answers every request with the router's endpoints."""

    def __init__(self, router: Router, *, limits: Limits, access_log: AccessLog | None = None) -> None:
        self._router = router
        self._limits = limits
        self._log = access_log
        self._unrouted = RouteCounters("", "")
        self._all: dict[str, RouteCounters] = {}
        self.active = 0
        """Requests being answered right now."""
        self.shed = 0
        """Requests refused because too many were being answered."""
        self.late = 0
        """Requests refused because their deadline had passed when they arrived."""

    def statistics(self) -> list[RouteStatistics]:
        """What each route has answered; those that nobody asked for are left out."""
        return [counters.statistics() for counters in (self._unrouted, *self._all.values())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        started = perf_counter()
        headers = dict(scope["headers"])
        context = context_of(headers.get(b"traceparent"))
        inbound = Inbound(headers, context)
        self.active += 1
        try:
            left = time_left(headers.get(DEADLINE_FIELD), self._limits.deadline)
            with use(context), deadline(left):
                await self._answer(scope, receive, inbound, left)
                if inbound.reply is not None:
                    await inbound.reply.send(send)
        finally:
            self.active -= 1
            self._account(scope, inbound, perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, inbound: Inbound, left: float) -> None:
        try:
            if self.active > self._limits.active:
                self.shed += 1
                raise overloaded()
            if left <= 0:
                self.late += 1
                raise passed()
            if scope["method"] == "HEAD":  # is GET without the body, which the server leaves out
                scope = {**scope, "method": "GET"}
            endpoint = self._router.find(scope)
            if (repeated := inbound.headers.get(RETRY_FIELD)) is not None:
                with repeated_request(attempt_of(repeated)):
                    inbound.reply = await endpoint(scope, receive, inbound)
            else:
                inbound.reply = await endpoint(scope, receive, inbound)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - the client gets a problem, whatever happened
            inbound.reply = refusal(error, scope)

    def _account(self, scope: Scope, inbound: Inbound, seconds: float) -> None:
        route = inbound.route
        if route is None:
            route = self._unrouted
        else:
            self._all.setdefault(route.method + route.path, route)
        status = GONE if inbound.reply is None else inbound.reply.status
        route.count(status, seconds)
        if self._log is not None:
            caller = inbound.caller
            self._log.write(
                scope["method"],
                scope["path"],
                route.path,
                status,
                seconds,
                inbound.context.trace_id,
                caller.id if caller is not None else None,
            )


__all__ = ["Front"]
