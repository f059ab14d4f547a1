"""From the head of a request to the head that the upstream gets: route, token, limit, headers."""

import random
import re

from backstay.gateway import problems
from backstay.gateway.asked import Asked
from backstay.gateway.forwarding import Peer
from backstay.gateway.guard import user_line
from backstay.gateway.headers import DEADLINE_HEADER, RequestNames
from backstay.gateway.plane import Plane
from backstay.gateway.problems import Health, Refusal
from backstay.gateway.routes import Route
from backstay.http.framing import IDEMPOTENT, RequestHead, connection_names
from backstay.http.paths import AmbiguousPath, decoded
from backstay.telemetry.trace import TraceContext

_MILLISECONDS = re.compile(rb"[ \t]*-?\d{1,18}[ \t]*")
HEALTH_PATHS = ("/health/live", "/health/ready")  # before any route, for whoever balances load before us
_KEY = b"\r\nidempotency-key: "
_KEEP_ALIVE = (b"keep-alive", b"close", b"Keep-Alive")


class Admitted:
    """A request that may pass, and what is sent for it."""

    __slots__ = (
        "after_host",
        "before_host",
        "connect_timeout",
        "repeatable",
        "response_lines",
        "response_timeout",
        "route",
        "user",
    )

    def __init__(
        self,
        route: Route,
        user: str | None,
        *,
        before_host: bytes,
        after_host: bytes,
        response_lines: bytes,
        connect_timeout: float,
        response_timeout: float,
        repeatable: bool,
    ) -> None:
        self.route = route
        self.user = user
        self.before_host = before_host
        self.after_host = after_host
        self.response_lines = response_lines
        self.connect_timeout = connect_timeout
        self.response_timeout = response_timeout
        self.repeatable = repeatable
        """Whether the request may reach the service twice: by its method, or by the key in the head that is sent."""


def trace_of(head: RequestHead) -> tuple[str, bytes]:
    """Return the trace id of a request and its header line: continued if it is well formed, else new."""
    given = head.index.get(b"traceparent")
    if given is not None and (context := TraceContext.parse(given.strip())) is not None:
        return context.trace_id, b"traceparent: %b\r\n" % given.strip()
    trace_id = f"{random.getrandbits(128) or 1:032x}"
    return trace_id, f"traceparent: 00-{trace_id}-{random.getrandbits(64) or 1:016x}-00\r\n".encode()


def find_route(plane: Plane, head: RequestHead) -> tuple[Route, Asked]:
    """Return the route of a request, and the request as routes see it; raises Refusal without a route."""
    path, _, query = head.target.decode("ascii").partition("?")
    if path in HEALTH_PATHS and head.method in (b"GET", b"HEAD"):
        raise Health(up=not (plane.draining and path.endswith("ready")))
    asked = Asked(head.method, _readable(path), query, head.host, head.index)
    if head.upgrade == b"websocket":
        raise Refusal(501, "not-implemented", "WebSocket isn't supported here")
    if head.method == b"TRACE":
        raise Refusal(501, "not-implemented", "TRACE isn't supported here")
    route = plane.routes.find(asked)
    if route is None:
        raise problems.no_route(head.method.decode(), path)
    return route, asked


def admit(
    plane: Plane, route: Route, asked: Asked, peer: Peer, head: RequestHead, *, trace_line: bytes, now: float
) -> Admitted:
    """Let a request pass or raise Refusal."""
    client = peer.client_key(head.index)
    principal = plane.guard.principal(route, head.index, client, now, exempt=peer.is_exempt(client))
    user = principal.id if principal is not None else None
    limit_lines = plane.guard.limit(route.limits, user, client, now) if route.limits else b""
    response_timeout, deadline_line = _deadline(plane, route, head)
    after_host = b"".join(
        (
            b"\r\n",
            *_passed(plane.request_names[route], head),
            peer.lines(head.host, head.index),
            trace_line,
            deadline_line,
            user_line(principal),
            route.request_lines.lines(asked.variables),
            _framing_line(head),
            b"\r\n",
        )
    )
    return Admitted(
        route,
        user,
        before_host=b"%b %b HTTP/1.1\r\nhost: " % (head.method, _forwarded(route, asked, head)),
        after_host=after_host,
        response_lines=limit_lines + route.response_lines.lines(asked.variables),
        connect_timeout=plane.connect_timeout if route.connect_timeout is None else route.connect_timeout,
        response_timeout=response_timeout,
        repeatable=head.method in IDEMPOTENT or _KEY in after_host.lower(),
    )


def _forwarded(route: Route, asked: Asked, head: RequestHead) -> bytes:
    """Return the target of the forwarded request."""
    if not route.actions.path:
        return head.target
    path, mark, query = head.target.decode("ascii").partition("?")
    return f"{route.forwarded_path(path, asked.variables)}{mark}{query}".encode()


def _readable(path: str) -> str:
    if path == "*":
        raise Refusal(404, "not-found", "there is no route for OPTIONS *")
    try:
        return decoded(path)
    except AmbiguousPath as error:
        raise problems.malformed(400, str(error)) from None


def _passed(names: RequestNames, head: RequestHead) -> list[bytes]:
    lines: list[bytes] = []
    ended = head.index.get(b"connection")
    named = connection_names(head.index) if ended is not None and ended not in _KEEP_ALIVE else ()
    known, passes = names.known, names.passes
    for name, value in head.fields:
        verdict = known.get(name)
        if verdict is None:
            verdict = passes(name)
        if verdict and name not in named:
            lines += (name, b": ", value, b"\r\n")
    return lines


def _framing_line(head: RequestHead) -> bytes:
    if head.chunked:
        return b"transfer-encoding: chunked\r\n"
    return b"" if head.length is None else b"content-length: %d\r\n" % head.length


def _deadline(plane: Plane, route: Route, head: RequestHead) -> tuple[float, bytes]:
    """Seconds that the upstream has for its answer, and the header line with them; raises Refusal.

    A deadline from outside is lowered to `deadline_ceiling` and to the route's own time. One below `deadline_floor` is
    refused before anything is sent: a call that can't be completed in time costs the service work, and others its room.
    """
    seconds = plane.response_timeout if route.response_timeout is None else route.response_timeout
    given = head.index.get(DEADLINE_HEADER)
    if given is not None and _MILLISECONDS.fullmatch(given):  # what isn't a number sets no deadline
        wanted = min(int(given) / 1000, plane.options.deadline_ceiling)
        if wanted <= 0:
            raise problems.gateway_timeout("the request's deadline has passed")
        if wanted < plane.options.deadline_floor:
            least = plane.options.deadline_floor * 1000
            raise problems.gateway_timeout(f"the request's deadline is shorter than the least of {least:g} ms")
        seconds = min(seconds, wanted)
    if seconds == float("inf"):
        return seconds, b""
    return seconds, b"%b: %d\r\n" % (DEADLINE_HEADER, seconds * 1000)
