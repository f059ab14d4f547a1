"""Errors of our small server as problem details (RFC 9457), the form that services and gateway use too."""

import json
from collections.abc import Sequence
from http import HTTPStatus

from backstay.http.errors import FramingError
from backstay.http.messages import HttpReply, HttpRequest
from backstay.telemetry.trace import TraceContext

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:backstay:problem:"
READING = ("GET", "HEAD")
MALFORMED = {
    400: "bad-request",
    408: "request-timeout",
    413: "too-large",
    414: "target-too-long",
    431: "head-too-large",
    501: "not-implemented",
    505: "version-not-supported",
}
"""The word for each status of a `FramingError`."""
SHOWN = 200  # characters of a path in a message


def problem(
    status: int, slug: str, detail: str, *, request: HttpRequest | None = None, headers: Sequence[tuple[str, str]] = ()
) -> HttpReply:
    """Return an error as an answer; its trace is the request's, if that has one."""
    given = request.headers.get("traceparent") if request is not None else None
    context = TraceContext.parse(given) or TraceContext.new()
    body: dict[str, object] = {
        "type": TYPE_PREFIX + slug,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "traceId": context.trace_id,
    }
    if request is not None:
        body["instance"] = request.path
    return HttpReply(status, json.dumps(body).encode(), headers, MEDIA_TYPE)


def malformed(error: FramingError) -> HttpReply:
    """A request breaks the rules of HTTP, or a limit."""
    return problem(error.status, MALFORMED[error.status], error.reason)


def internal_error(request: HttpRequest | None = None) -> HttpReply:
    """The handler failed; its error is in the log and nowhere else."""
    return problem(500, "internal-error", "something went wrong; it is in the log", request=request)


def not_found(request: HttpRequest) -> HttpReply:
    """Nothing is at this path."""
    return problem(404, "not-found", f"there is nothing at {request.path[:SHOWN]}", request=request)


def only_read(request: HttpRequest) -> HttpReply | None:
    """Return the refusal of a method that changes something, at a path that can only be read."""
    if request.method in READING:
        return None
    detail = f"{request.method} is not possible at {request.path[:SHOWN]}"
    return problem(405, "method-not-allowed", detail, request=request, headers=[("allow", ", ".join(READING))])
