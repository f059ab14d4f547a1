"""The ASGI application of a service: trace, deadline, load shedding, routing, one access line and counts a request.

An error becomes a problem, whatever it is. Requests that no route takes go to a mounted application, if one has their
path; what surrounds requests surrounds those, too, but for tokens: a mounted application checks its own.
"""

from collections.abc import Sequence
from time import perf_counter

from backstay.asgi.access import GONE
from backstay.asgi.deadlines import DEADLINE_FIELD, RETRY_FIELD, passed, time_left
from backstay.asgi.replies import refusal
from backstay.asgi.shedding import overloaded
from backstay.asgi.types import Message, Receive, Scope, Send
from backstay.http.problems import NotFound, Problem
from backstay.resilience import attempt_of, deadline, repeated_request
from backstay.service.endpoint import Inbound, Limits
from backstay.service.mounts import Mount, find_mount
from backstay.service.requests import Disconnected
from backstay.service.router import Router
from backstay.service.statistics import RouteCounters, RouteStatistics
from backstay.telemetry.access import AccessLog
from backstay.telemetry.trace import TraceContext, use

GOING_AWAY = 1001
"""Status with which a WebSocket is closed that no mounted application takes."""


class Dispatcher:
    """Answers every request with the router's endpoints, or a mounted application."""

    def __init__(
        self, router: Router, *, limits: Limits, mounts: Sequence[Mount] = (), access_log: AccessLog | None = None
    ) -> None:
        self._router = router
        self._limits = limits
        self._mounts = tuple(mounts)
        self._log = access_log
        self._unrouted = RouteCounters("", "")
        self._all: dict[RouteCounters, None] = {}
        self.active = 0
        """Requests being answered right now."""
        self.shed = 0
        """Requests refused because too many were being answered."""
        self.late = 0
        """Requests refused because their deadline had passed when they arrived."""

    def statistics(self) -> list[RouteStatistics]:
        """What each route has answered; those that nobody asked for are left out."""
        return [counters.statistics() for counters in (self._unrouted, *self._all)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: an HTTP request."""
        started = perf_counter()
        headers = dict(scope["headers"])
        context = TraceContext.below(headers.get(b"traceparent"))
        inbound = Inbound(headers, context)
        self.active += 1
        try:
            left = time_left(headers.get(DEADLINE_FIELD), self._limits.deadline)
            with use(context), deadline(left):
                mount = await self._answer(scope, receive, inbound, left)
                if mount is not None:
                    await self._pass_on(mount, scope, receive, send, inbound)
                elif inbound.reply is not None:
                    await inbound.reply.send(send)
        finally:
            self.active -= 1
            self._account(scope, inbound, perf_counter() - started)

    async def connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: a WebSocket. Only a mounted application takes it."""
        mount = find_mount(self._mounts, scope["path"])
        if mount is None:
            await receive()
            await send({"type": "websocket.close", "code": GOING_AWAY})
            return
        with use(TraceContext.below(dict(scope["headers"]).get(b"traceparent"))):
            await mount(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, inbound: Inbound, left: float) -> Mount | None:
        """Leave the answer in `inbound`; or return the mounted application that is to give it."""
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
            pass
        except NotFound as error:
            mount = find_mount(self._mounts, scope["path"]) if inbound.route is None else None
            if mount is not None:
                return mount
            inbound.reply = refusal(error, scope)
        except Exception as error:  # noqa: BLE001 - the client gets a problem, whatever happened
            inbound.reply = refusal(error, scope)
        return None

    async def _pass_on(self, mount: Mount, scope: Scope, receive: Receive, send: Send, inbound: Inbound) -> None:
        inbound.route = mount.counters

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                inbound.status = message["status"]
            await send(message)

        try:
            if inbound.headers.get(b"upgrade", b"").lower() == b"websocket":
                raise _no_websocket()
            with repeated_request(attempt_of(inbound.headers.get(RETRY_FIELD))):
                await mount(scope, receive, noting)
        except Exception as error:
            if inbound.status:
                raise
            inbound.reply = refusal(error, scope)
            await inbound.reply.send(send)

    def _account(self, scope: Scope, inbound: Inbound, seconds: float) -> None:
        route = inbound.route
        if route is None:
            route = self._unrouted
        elif route not in self._all:
            self._all[route] = None
        status = (inbound.status or GONE) if inbound.reply is None else inbound.reply.status
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


def _no_websocket() -> Problem:
    detail = "this HTTP server offers no WebSocket; run the service under uvicorn or Granian for that"
    return Problem(501, "websocket-not-offered", "WebSocket not offered", detail)


__all__ = ["Dispatcher"]
