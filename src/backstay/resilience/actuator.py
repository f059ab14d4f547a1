"""Policies as Resilience4j's actuator shows them, so that what reads `/actuator/circuitbreakers` works.

`Actuator` keeps the last events of each policy and is an ASGI application to be mounted at `/actuator`:

    GET  /circuitbreakers                      every breaker's rates, counts and state
    GET  /circuitbreakers/{name}               one
    POST /circuitbreakers/{name}               {"updateState": "CLOSE" | "FORCE_OPEN" | "DISABLE"}
    GET  /circuitbreakerevents[/{name}[/{type}]]        the last events
    GET  /streamcircuitbreakerevents[/{name}[/{type}]]  the same as they happen (server-sent events, a ping a second)
    GET  /retries, /ratelimiters, /bulkheads, /timelimiters                       names
    GET  /retryevents, /ratelimiterevents, /bulkheadevents, /timelimiterevents    [/{name}[/{type}]]

It has no access control: mount it where only operators come.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from backstay.resilience import events
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.endpoints import (
    BREAKERS,
    ENDPOINTS,
    Endpoint,
    circuit_breakers,
    details,
    endpoint_of,
    event_details,
)
from backstay.resilience.events import State
from backstay.resilience.policy import Policy
from backstay.resilience.registry import EntryAdded, EntryReplaced, Registry

BUFFER = 100  # events kept of each policy
BACKLOG = 256  # events that a slow reader of a stream may be behind; more are dropped
MAX_STREAMS = 100  # readers of streams at the same time
PING = 1.0  # seconds
MAX_BODY = 4096  # bytes
MAX_SHOWN = 200  # characters of a path in a message
UPDATES = {"CLOSE": State.CLOSED, "FORCE_OPEN": State.FORCED_OPEN, "DISABLE": State.DISABLED}
STREAM = f"stream{BREAKERS.events_path}"

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Shown = dict[str, Any]


class _Stream:
    """Events that one reader of a stream has yet to receive; they come from any thread."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Shown] = asyncio.Queue(BACKLOG)
        self._loop = asyncio.get_running_loop()

    def offer(self, shown: Shown) -> None:
        """Hand an event to the reader's loop; it is dropped if the reader is too far behind."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, shown)

    def _put(self, shown: Shown) -> None:
        if not self.waiting.full():
            self.waiting.put_nowait(shown)


class Actuator:
    """The ASGI application.

    policies: a registry, whose policies are listened to from the moment they are there; or a function that gives
    policies, asked at each request.
    successes: keep successes of breakers, too; a listener for them takes the fast path from every call.
    buffer: events kept of each policy.
    """

    def __init__(
        self, policies: Registry | Callable[[], Iterable[Any]], *, successes: bool = False, buffer: int = BUFFER
    ) -> None:
        self._policies: Callable[[], Iterable[Any]] = policies if callable(policies) else lambda: policies
        self._successes = successes
        self._size = buffer
        self._buffers: dict[Policy, deque[Shown]] = {}
        self._streams: set[_Stream] = set()
        if isinstance(policies, Registry):
            policies.on(EntryAdded, lambda added: self._listen(added.policy))
            policies.on(EntryReplaced, lambda replaced: self._listen(replaced.policy))
        self.attend()

    def attend(self) -> dict[str, list[Any]]:
        """Listen to policies that are new, forget those that are gone; return all by the path that shows them."""
        found: dict[str, list[Any]] = {endpoint.path: [] for endpoint in ENDPOINTS}
        for policy in self._policies():
            endpoint = endpoint_of(policy)
            if endpoint is not None:
                found[endpoint.path].append(policy)
                self._listen(policy)
        present = {policy for policies in found.values() for policy in policies}
        for gone in [policy for policy in self._buffers if policy not in present]:
            del self._buffers[gone]
        return found

    def _listen(self, policy: Any) -> None:
        endpoint = endpoint_of(policy)
        if endpoint is None or policy in self._buffers:
            return
        buffer = self._buffers[policy] = deque(maxlen=self._size)
        keep = self._keeper(buffer, endpoint)
        for kind in endpoint.types:
            if self._successes or kind is not events.CallSucceeded:
                policy.on(kind, keep)

    def _keeper(self, buffer: deque[Shown], endpoint: Endpoint) -> Callable[[events.Event], None]:
        def keep(event: events.Event) -> None:
            shown = event_details(event, endpoint)
            buffer.append(shown)
            if endpoint is BREAKERS:
                for stream in tuple(self._streams):
                    stream.offer(shown)

        return keep

    def events(self, name: str | None = None, kind: str | None = None, *, of: Endpoint = BREAKERS) -> Shown:
        """Return the last events of policies of one kind, oldest first."""
        self.attend()
        kept = [
            event
            for policy, buffer in tuple(self._buffers.items())
            if isinstance(policy, of.kinds)
            for event in tuple(buffer)
            if _wanted(event, of, name, kind)
        ]
        return {of.events_shown: sorted(kept, key=lambda event: str(event["creationTime"]))}

    def answer(self, method: str, path: str, body: bytes = b"") -> tuple[int, Shown]:
        """Status and content for a request, without the stream: for servers of another kind than ASGI's."""
        match method, _parts(path):
            case "GET" | "POST", ["circuitbreakers", name]:
                breaker = next((each for each in self.attend()[BREAKERS.path] if each.name == name), None)
                if breaker is None:
                    return 404, {"error": f"there is no circuit breaker {name[:MAX_SHOWN]!r}"}
                return (200, details(breaker)) if method == "GET" else _update(breaker, body)
            case "GET", [first, *which]:
                for endpoint in ENDPOINTS:
                    if first == endpoint.path and not which:
                        return 200, self._names(endpoint)
                    if first == endpoint.events_path and len(which) <= 2:
                        return _unknown_type(endpoint, *which) or (200, self.events(*which, of=endpoint))
        return 404, {"error": f"there is no {method} {path[:MAX_SHOWN]}"}

    def _names(self, endpoint: Endpoint) -> Shown:
        found = self.attend()[endpoint.path]
        if endpoint is BREAKERS:
            return circuit_breakers(found)
        return {endpoint.shown: sorted(str(policy.name) for policy in found)}

    # -- ASGI -----------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            raise ValueError(f"the actuator speaks http, not {scope['type']}")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        match scope["method"], _parts(path):
            case "GET", [first, *which] if first == STREAM and len(which) <= 2:
                refused = _unknown_type(BREAKERS, *which) or self._too_many()
                await (_reply(send, *refused) if refused else self._stream(receive, send, *which))
            case "POST", _:
                await _reply(send, *self.answer("POST", path, await _body(receive)))
            case method, _:
                await _reply(send, *self.answer(method, path))

    def _too_many(self) -> tuple[int, Shown] | None:
        return (503, {"error": f"{MAX_STREAMS} streams are open"}) if len(self._streams) >= MAX_STREAMS else None

    async def _stream(self, receive: Receive, send: Send, name: str | None = None, kind: str | None = None) -> None:
        self.attend()
        stream = _Stream()
        self._streams.add(stream)
        gone = asyncio.ensure_future(_disconnected(receive))
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while not gone.done():
                text = await _next(stream.waiting, gone, name, kind)
                if text:
                    await send({"type": "http.response.body", "body": text, "more_body": True})
        finally:
            self._streams.discard(stream)
            gone.cancel()


def _parts(path: str) -> list[str]:
    return path.removeprefix("/actuator").strip("/").split("/")


def _unknown_type(endpoint: Endpoint, _name: str = "", kind: str | None = None) -> tuple[int, Shown] | None:
    if kind is None or kind.upper() in endpoint.known:
        return None
    return 400, {"error": f"{kind[:MAX_SHOWN]!r} is no type of event; there are: {', '.join(sorted(endpoint.known))}"}


def _update(breaker: CircuitBreaker, body: bytes) -> tuple[int, Shown]:
    try:
        state = UPDATES[json.loads(body)["updateState"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 400, {"error": f'send {{"updateState": one of {", ".join(UPDATES)}}}'}
    breaker.transition_to(state)
    message = f"{breaker.name} state has been changed successfully"
    return 200, {"circuitBreakerName": breaker.name, "currentState": breaker.state.value, "message": message}


async def _next(
    queue: "asyncio.Queue[Shown]", gone: "asyncio.Future[None]", name: str | None, kind: str | None
) -> bytes:
    """Return the next item to send: an event, a ping after a second without one, nothing for an event filtered out."""
    coming = asyncio.ensure_future(queue.get())
    waits: set[asyncio.Future[Any]] = {coming, gone}
    try:
        await asyncio.wait(waits, timeout=PING, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not coming.done():
            coming.cancel()
    if not coming.done() or coming.cancelled():
        return b"" if gone.done() else b"event: ping\n\n"
    event = coming.result()
    if not _wanted(event, BREAKERS, name, kind):
        return b""
    of = " ".join(str(event[BREAKERS.name]).splitlines())
    return f"id: {of}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _wanted(event: Shown, of: Endpoint, name: str | None, kind: str | None) -> bool:
    return name in (None, event[of.name]) and (kind is None or kind.upper() == event["type"])


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


async def _reply(send: Send, status: int, content: Shown) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


__all__ = ["Actuator"]
