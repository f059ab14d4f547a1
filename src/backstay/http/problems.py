"""Every error answer, as problem details (RFC 9457): services, gateway, registry and management ports have this form.

BackstayError
└── Problem                  any status; the base
    ├── BadRequest           400  the request can't be understood
    ├── Unauthorized         401  no valid access token
    ├── Forbidden            403  the token lacks a scope or role
    ├── NotFound             404  nothing there, or nothing the caller may see
    ├── MethodNotAllowed     405  the path exists, the method doesn't
    ├── RequestTimeout       408  the body came too slowly
    ├── Conflict             409  the state of the resource forbids it; has a slug of its own
    ├── PreconditionFailed   412  what the request is meant for has changed meanwhile
    ├── TooLarge             413  the body is over the limit
    ├── UnsupportedMedia     415  the body is not JSON
    ├── Unprocessable        422  understood, but a field is wrong; lists the fields
    ├── TooManyRequests      429  come back later
    ├── Unavailable          503  something needed is away; come back later
    └── DeadlineExceeded     504  the caller's time is over

What goes out is written here and nowhere else: no stack trace, no SQL, no secret. The functions at the end make whole
answers of `HttpServer`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from backstay.errors import BackstayError
from backstay.http.errors import FramingError
from backstay.http.messages import HttpReply, HttpRequest
from backstay.telemetry.trace import TraceContext

TYPE_PREFIX = "urn:backstay:problem:"
MEDIA_TYPE = "application/problem+json"
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


class FieldError(msgspec.Struct, frozen=True):
    """One wrong field of a request."""

    pointer: str
    """JSON pointer into the body, such as `/lines/0/quantity`; `/query/<name>` for a query parameter."""
    reason: str
    """What is wrong, and what is allowed."""


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"trace_id": "traceId"}):
    """The body of every error answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    trace_id: str = ""
    errors: list[FieldError] = []


class Problem(BackstayError):
    """A request could not be fulfilled; `status`, `slug`, `title` and `detail` tell the client why."""

    status: int = 500
    slug: str = "internal-error"

    def __init__(
        self,
        status: int,
        slug: str,
        title: str | None = None,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[FieldError] = (),
        **members: Any,
    ) -> None:
        self.status = status
        self.slug = slug.removeprefix(TYPE_PREFIX)
        self.title = title or slug.replace("-", " ").capitalize()
        self.detail = detail
        self.headers: dict[str, str] = dict(headers or {})
        self.errors = list(errors)
        self.members = members
        super().__init__(detail or self.title)

    @property
    def type(self) -> str:
        """The problem type, a URN that names the slug."""
        return TYPE_PREFIX + self.slug

    def body(self, *, instance: str = "", trace_id: str = "") -> dict[str, Any]:
        """Return the members of the problem, in the order they are written."""
        body: dict[str, Any] = {"type": self.type, "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        if instance:
            body["instance"] = instance
        if trace_id:
            body["traceId"] = trace_id
        if self.errors:
            body["errors"] = self.errors
        return body | self.members


class _Simple(Problem):
    """A problem whose status and slug are its class's."""

    def __init__(
        self,
        detail: str = "",
        *,
        slug: str | None = None,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[FieldError] = (),
        **members: Any,
    ) -> None:
        kind = type(self)
        if title is None and slug is None:
            title = HTTPStatus(kind.status).phrase
        super().__init__(kind.status, slug or kind.slug, title, detail, headers=headers, errors=errors, **members)


class BadRequest(_Simple):
    """The request can't be understood."""

    status = 400
    slug = "bad-request"


class Unauthorized(_Simple):
    """There is no valid access token."""

    status = 401
    slug = "unauthorized"

    def __init__(self, detail: str = "", *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer", **(headers or {})}, **members)


class Forbidden(_Simple):
    """The access token lacks a scope or role."""

    status = 403
    slug = "forbidden"


class NotFound(_Simple):
    """Nothing is there, or nothing that the caller may see."""

    status = 404
    slug = "not-found"


class MethodNotAllowed(_Simple):
    """The path exists, the method doesn't."""

    status = 405
    slug = "method-not-allowed"


class RequestTimeout(_Simple):
    """The body came too slowly."""

    status = 408
    slug = "request-timeout"


class Conflict(_Simple):
    """The state of the resource forbids it: `Conflict("out-of-stock", "only 3 left", sku=...)`."""

    status = 409
    slug = "conflict"

    def __init__(self, slug: str, detail: str = "", **more: Any) -> None:
        super().__init__(detail, slug=slug, **more)


class PreconditionFailed(_Simple):
    """`If-Match` or `If-None-Match` doesn't hold: what the request is meant for has changed meanwhile."""

    status = 412
    slug = "precondition-failed"


class TooLarge(_Simple):
    """The body is over the limit."""

    status = 413
    slug = "too-large"


class UnsupportedMedia(_Simple):
    """The body is not of a media type that is understood."""

    status = 415
    slug = "unsupported-media-type"


class Unprocessable(_Simple):
    """The request was understood, but a field is wrong; `errors` names the fields."""

    status = 422
    slug = "unprocessable"

    def __init__(self, detail: str = "", *, errors: Iterable[FieldError] = (), **more: Any) -> None:
        listed = list(errors)
        if not detail and listed:
            detail = "; ".join(f"{error.pointer}: {error.reason}" for error in listed[:3])
        super().__init__(detail, errors=listed, **more)


class TooManyRequests(_Simple):
    """Too many requests: come back in `retry_after` seconds."""

    status = 429
    slug = "too-many-requests"

    def __init__(self, detail: str = "", *, retry_after: float = 1.0, **more: Any) -> None:
        super().__init__(detail, headers=_retry_after(retry_after, more), **more)


class Unavailable(_Simple):
    """Something needed is away: come back in `retry_after` seconds."""

    status = 503
    slug = "unavailable"

    def __init__(self, detail: str = "", *, retry_after: float = 1.0, **more: Any) -> None:
        super().__init__(detail, headers=_retry_after(retry_after, more), **more)


class DeadlineExceeded(_Simple):
    """The time that the caller gave is over."""

    status = 504
    slug = "deadline-exceeded"


def _retry_after(seconds: float, more: dict[str, Any]) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds))), **(more.pop("headers", None) or {})}


def problem(
    status: int, slug: str, detail: str, *, request: HttpRequest | None = None, headers: Sequence[tuple[str, str]] = ()
) -> HttpReply:
    """Return an error as an answer; its trace is the request's, if that has one."""
    given = request.headers.get("traceparent") if request is not None else None
    context = TraceContext.parse(given) or TraceContext.new()
    error = Problem(status, slug, HTTPStatus(status).phrase, detail)
    body = error.body(instance="" if request is None else request.path, trace_id=context.trace_id)
    return HttpReply(status, msgspec.json.encode(body), headers, MEDIA_TYPE)


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


__all__ = [
    "MALFORMED",
    "MEDIA_TYPE",
    "READING",
    "TYPE_PREFIX",
    "BadRequest",
    "Conflict",
    "DeadlineExceeded",
    "FieldError",
    "Forbidden",
    "MethodNotAllowed",
    "NotFound",
    "PreconditionFailed",
    "Problem",
    "ProblemBody",
    "RequestTimeout",
    "TooLarge",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UnsupportedMedia",
    "internal_error",
    "malformed",
    "not_found",
    "only_read",
    "problem",
]
