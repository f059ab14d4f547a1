"""Circuit breakers as Resilience4j's actuator shows them, so that what reads `/actuator/circuitbreakers` works.

`Actuator` keeps the last events of each breaker and is an ASGI application to be mounted at `/actuator`:

    GET  /circuitbreakers                      every breaker's rates, counts and state
    GET  /circuitbreakers/{name}               one
    POST /circuitbreakers/{name}               {"updateState": "CLOSE" | "FORCE_OPEN" | "DISABLE"}
    GET  /circuitbreakerevents[/{name}[/{type}]]         the last events
    GET  /stream/circuitbreakerevents[/{name}[/{type}]]  the same as they happen (server-sent events, a ping a second)

It has no access control: mount it where only operators come.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from backstay.resilience import events
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.events import State

BUFFER = 100  # events kept of each breaker
BACKLOG = 256  # events that a slow reader of a stream may be behind; more are dropped
PING = 1.0  # seconds
MAX_BODY = 4096  # bytes
MAX_SHOWN = 200  # characters of a path in a message
UPDATES = {"CLOSE": State.CLOSED, "FORCE_OPEN": State.FORCED_OPEN, "DISABLE": State.DISABLED}
TYPES: dict[type[events.Event], str] = {
    events.CallFailed: "ERROR",
    events.CallIgnored: "IGNORED_ERROR",
    events.NotPermitted: "NOT_PERMITTED",
    events.StateTransition: "STATE_TRANSITION",
    events.BreakerReset: "RESET",
    events.FailureRateExceeded: "FAILURE_RATE_EXCEEDED",
    events.SlowCallRateExceeded: "SLOW_CALL_RATE_EXCEEDED",
    events.CallSucceeded: "SUCCESS",
}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def circuit_breakers(breakers: Iterable[CircuitBreaker]) -> dict[str, Any]:
    """The body of `GET /actuator/circuitbreakers`."""
    return {"circuitBreakers": {breaker.name: details(breaker) for breaker in breakers}}


def details(breaker: CircuitBreaker) -> dict[str, Any]:
    """One breaker: rates as text with a percent sign, −1.0% while there are too few calls."""
    now = breaker.statistics()
    return {
        "failureRate": f"{now.failure_rate:.1f}%",
        "slowCallRate": f"{now.slow_call_rate:.1f}%",
        "failureRateThreshold": f"{breaker.config.failure_rate:.1f}%",
        "slowCallRateThreshold": f"{breaker.config.slow.rate:.1f}%",
        "bufferedCalls": now.buffered_calls,
        "failedCalls": now.failed_calls,
        "slowCalls": now.slow_calls,
        "slowFailedCalls": now.slow_failed_calls,
        "notPermittedCalls": now.not_permitted_calls,
        "state": now.state.value,
    }


def event_details(event: events.Event) -> dict[str, Any]:
    """One event as the actuator shows it."""
    shown: dict[str, Any] = {
        "circuitBreakerName": event.name,
        "type": TYPES[type(event)],
        "creationTime": event.at.isoformat(),
    }
    match event:
        case events.CallFailed(duration=duration, error=error) | events.CallIgnored(duration=duration, error=error):
            shown |= {"errorMessage": f"{type(error).__name__}: {error}", "durationInMs": round(duration * 1000)}
        case events.CallSucceeded(duration=duration):
            shown["durationInMs"] = round(duration * 1000)
        case events.StateTransition(from_state=old, to_state=new):
            shown["stateTransition"] = f"{old.value}_TO_{new.value}"
        case events.FailureRateExceeded(rate=rate):
            shown["failureRate"] = rate
        case events.SlowCallRateExceeded(rate=rate):
            shown["slowCallRate"] = rate
    return shown


class Actuator:
    """The ASGI application. breakers: a function that gives them, so that later ones are seen (`registry.breakers`).

    successes: keep successes among the events, too; a listener for them takes the fast path from every call.
    """

    def __init__(
        self, breakers: Callable[[], Iterable[CircuitBreaker]], *, successes: bool = False, buffer: int = BUFFER
    ) -> None:
        self._breakers = breakers
        self._kept = [kind for kind in TYPES if successes or kind is not events.CallSucceeded]
        self._size = buffer
        self._buffers: dict[CircuitBreaker, deque[dict[str, Any]]] = {}
        self._streams: set[asyncio.Queue[dict[str, Any]]] = set()
        self.attend()

    def attend(self) -> dict[str, CircuitBreaker]:
        """Listen to breakers that are new; all of them by name."""
        found = {breaker.name: breaker for breaker in self._breakers()}
        for breaker in found.values():
            if breaker not in self._buffers:
                self._buffers[breaker] = deque(maxlen=self._size)
                for kind in self._kept:
                    breaker.on(kind, self._keeper(self._buffers[breaker]))
        for gone in set(self._buffers) - set(found.values()):
            del self._buffers[gone]
        return found

    def _keeper(self, buffer: deque[dict[str, Any]]) -> Callable[[events.Event], None]:
        def keep(event: events.Event) -> None:
            shown = event_details(event)
            buffer.append(shown)
            for stream in self._streams:
                if not stream.full():
                    stream.put_nowait(shown)

        return keep

    def events(self, name: str | None = None, kind: str | None = None) -> dict[str, Any]:
        """The last events, in the order of time."""
        self.attend()
        kept = [event for buffer in self._buffers.values() for event in buffer if _wanted(event, name, kind)]
        return {"circuitBreakerEvents": sorted(kept, key=lambda event: str(event["creationTime"]))}

    def answer(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Status and content for a request, without the stream: for servers of another kind than ASGI's."""
        match method, _parts(path):
            case "GET", ["circuitbreakers"]:
                return 200, circuit_breakers(self.attend().values())
            case "GET" | "POST", ["circuitbreakers", name]:
                breaker = self.attend().get(name)
                if breaker is None:
                    return 404, {"error": f"there is no circuit breaker {name!r}"}
                return (200, details(breaker)) if method == "GET" else _update(breaker, body)
            case "GET", ["circuitbreakerevents", *which] if len(which) <= 2:
                return 200, self.events(*which)
        return 404, {"error": f"there is no {method} {path[:MAX_SHOWN]}"}

    # -- ASGI -----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            raise ValueError(f"the actuator speaks http, not {scope['type']}")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        match scope["method"], _parts(path):
            case "GET", ["stream", "circuitbreakerevents", *which] if len(which) <= 2:
                await self._stream(receive, send, *which)
            case "POST", _:
                await _reply(send, *self.answer("POST", path, await _body(receive)))
            case method, _:
                await _reply(send, *self.answer(method, path))

    async def _stream(self, receive: Receive, send: Send, name: str | None = None, kind: str | None = None) -> None:
        self.attend()
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(BACKLOG)
        self._streams.add(queue)
        gone = asyncio.ensure_future(_disconnected(receive))
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while not gone.done():
                text = await _next(queue, gone, name, kind)
                if text:
                    await send({"type": "http.response.body", "body": text, "more_body": True})
        finally:
            self._streams.discard(queue)
            gone.cancel()


def _parts(path: str) -> list[str]:
    return path.removeprefix("/actuator").strip("/").split("/")


def _update(breaker: CircuitBreaker, body: bytes) -> tuple[int, dict[str, Any]]:
    try:
        state = UPDATES[json.loads(body)["updateState"]]
    except (ValueError, KeyError, TypeError):
        return 400, {"error": f'send {{"updateState": one of {", ".join(UPDATES)}}}'}
    breaker.transition_to(state)
    message = f"{breaker.name} state has been changed successfully"
    return 200, {"circuitBreakerName": breaker.name, "currentState": breaker.state.value, "message": message}


async def _next(
    queue: "asyncio.Queue[dict[str, Any]]", gone: "asyncio.Future[None]", name: str | None, kind: str | None
) -> bytes:
    """The next thing to send: an event, a ping after a second, nothing for an event that isn't wanted."""
    coming = asyncio.ensure_future(queue.get())
    waits: set[asyncio.Future[Any]] = {coming, gone}
    await asyncio.wait(waits, timeout=PING, return_when=asyncio.FIRST_COMPLETED)
    if not coming.done():
        coming.cancel()
        return b"" if gone.done() else b": ping\n\n"
    event = coming.result()
    if not _wanted(event, name, kind):
        return b""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _wanted(event: dict[str, Any], name: str | None, kind: str | None) -> bool:
    return name in (None, event["circuitBreakerName"]) and (kind is None or kind.upper() == event["type"])


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more and len(body) <= MAX_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _reply(send: Send, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


__all__ = ["Actuator", "circuit_breakers", "details", "event_details"]
