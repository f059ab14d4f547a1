"""The outermost ASGI application: trace, deadline, one access line, counts, and a problem for every error."""

from collections.abc import Mapping
from time import perf_counter

from backstay.asgi.types import Receive, Scope, Send
from backstay.http.problems import DeadlineExceeded, Unavailable
from backstay.resilience import RETRY_HEADER, STOP_HEADER, attempt_of, deadline, repeated_request
from backstay.resilience.deadline import HEADER
from backstay.service.endpoint import Inbound, Limits, Reply, refusal
from backstay.service.requests import Disconnected
from backstay.service.router import Router
from backstay.service.statistics import RouteCounters, RouteStatistics
from backstay.telemetry.access import AccessLog
from backstay.telemetry.trace import TraceContext, use

GONE = 499
"""Status in logs and metrics of a request whose client left."""

_DEADLINE = HEADER.encode()
_RETRY = RETRY_HEADER.encode()


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
        parent = TraceContext.parse(headers.get(b"traceparent"))
        context = TraceContext.new() if parent is None else parent.child()
        inbound = Inbound(headers, context)
        self.active += 1
        try:
            left = self._time_left(headers)
            with use(context), deadline(left):
                await self._answer(scope, receive, inbound, left)
                if inbound.reply is not None:
                    await send_reply(inbound.reply, send)
        finally:
            self.active -= 1
            self._account(scope, inbound, perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, inbound: Inbound, left: float) -> None:
        try:
            if self.active > self._limits.active:
                self.shed += 1
                raise Unavailable("too many requests are being answered at this moment", headers={STOP_HEADER: "1"})
            if left <= 0:
                self.late += 1
                raise DeadlineExceeded("the deadline had passed when the request arrived")
            if scope["method"] == "HEAD":  # is GET without the body, which the server leaves out
                scope = {**scope, "method": "GET"}
            endpoint = self._router.find(scope)
            if (repeated := inbound.headers.get(_RETRY)) is not None:
                with repeated_request(attempt_of(repeated)):
                    inbound.reply = await endpoint(scope, receive, inbound)
            else:
                inbound.reply = await endpoint(scope, receive, inbound)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - the client gets a problem, whatever happened
            inbound.reply = refusal(error, scope, inbound)

    def _time_left(self, headers: Mapping[bytes, bytes]) -> float:
        given = headers.get(_DEADLINE)
        if given is None:
            return self._limits.deadline
        try:
            return min(int(given) / 1000, self._limits.deadline)
        except (ValueError, OverflowError):
            return self._limits.deadline

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


async def send_reply(reply: Reply, send: Send) -> None:
    """Send the answer."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body})


__all__ = ["GONE", "Front", "send_reply"]
