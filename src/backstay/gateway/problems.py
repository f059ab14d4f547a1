"""The gateway's own answers: RFC 9457 problem details, the same form that the services use."""

import json
from collections.abc import Sequence
from http import HTTPStatus

from backstay.errors import BackstayError
from backstay.http.framing import field_line
from backstay.http.messages import status_line
from backstay.http.problems import MALFORMED
from backstay.resilience import STOP_HEADER

TYPE_PREFIX = "urn:backstay:problem:"
MEDIA_TYPE = "application/problem+json"


class Refusal(BackstayError):
    """The gateway answers a request itself."""

    media_type = MEDIA_TYPE

    def __init__(
        self, status: int, slug: str, detail: str, headers: Sequence[tuple[str, str]] = (), *, title: str = ""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.headers = headers
        self.title = title or HTTPStatus(status).phrase

    def body(self, instance: str, trace_id: str) -> bytes:
        """Return the problem document."""
        members: dict[str, object] = {
            "type": TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if instance:
            members["instance"] = instance
        members["traceId"] = trace_id
        return json.dumps(members, ensure_ascii=False).encode()


class Health(Refusal):
    """The one answer of the gateway itself that isn't a problem: that it lives, or takes requests."""

    media_type = "application/json"

    def __init__(self, *, up: bool) -> None:
        super().__init__(200 if up else 503, "", "")

    def body(self, instance: str, trace_id: str) -> bytes:  # noqa: ARG002 - it is always the same
        """Return the status in the form of Spring's health endpoint."""
        return b'{"status":"UP"}' if self.status == 200 else b'{"status":"DOWN"}'


def malformed(status: int, reason: str) -> Refusal:
    """Return the answer to a request that breaks the rules of HTTP or a limit."""
    return Refusal(status, MALFORMED.get(status, "bad-request"), reason)


def no_route(method: str, path: str) -> Refusal:
    """Nothing is at this path."""
    return Refusal(404, "not-found", f"there is no route for {method} {path}")


def unauthorized(reason: str) -> Refusal:
    """The token isn't acceptable."""
    header = ("WWW-Authenticate", 'Bearer error="invalid_token"')
    return Refusal(401, "unauthorized", f"the access token isn't valid: {reason}", [header])


def token_missing() -> Refusal:
    """There is no token."""
    return Refusal(
        401, "unauthorized", "an access token is needed: Authorization: Bearer …", [("WWW-Authenticate", "Bearer")]
    )


def forbidden(scope: str) -> Refusal:
    """The token doesn't allow it."""
    header = ("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="{scope}"')
    return Refusal(403, "forbidden", f"the access token needs the scope {scope}", [header])


def keys_unavailable(retry_after: int) -> Refusal:
    """Tokens can't be checked yet."""
    detail = "access tokens can't be checked at the moment; try again"
    return Refusal(503, "unavailable", detail, [("Retry-After", str(retry_after))])


def too_many(retry_after: int, headers: Sequence[tuple[str, str]]) -> Refusal:
    """Over the limit."""
    detail = f"too many requests; try again in {retry_after} s"
    return Refusal(429, "too-many-requests", detail, [("Retry-After", str(retry_after)), *headers])


def no_instance(app: str, retry_after: int) -> Refusal:
    """Return the refusal of a request without an instance to send it to."""
    detail = f"no instance of {app} can be reached at the moment; try again"
    return Refusal(503, "no-instance", detail, [("Retry-After", str(retry_after))])


def unreachable(reason: str, retry_after: int) -> Refusal:
    """Instances are there, and none takes plain HTTP."""
    return Refusal(503, "instance-unreachable", reason, [("Retry-After", str(retry_after))])


def overloaded(retry_after: int) -> Refusal:
    """Too many requests are waiting for this upstream."""
    return _shed("unavailable", "the service has too many requests in flight", retry_after)


def circuit_open(name: str, retry_after: int) -> Refusal:
    """The circuit breaker of the route lets nothing pass."""
    detail = f"circuit breaker '{name}' permits no calls to the service at the moment; try again in {retry_after} s"
    return _shed("circuit-open", detail, retry_after)


def _shed(slug: str, detail: str, retry_after: int) -> Refusal:
    """Return the refusal of a request that was not attempted, to shed load: the caller must not repeat it at once."""
    return Refusal(503, slug, detail, [("Retry-After", str(retry_after)), (STOP_HEADER, "1")])


def bad_gateway(detail: str) -> Refusal:
    """The upstream's answer is no answer."""
    return Refusal(502, "bad-gateway", detail)


def gateway_timeout(detail: str) -> Refusal:
    """The upstream didn't answer in time."""
    return Refusal(504, "gateway-timeout", detail)


def answer_bytes(
    refusal: Refusal, instance: str, trace_id: str, *, keep: bool, head_only: bool, extra: bytes = b""
) -> bytes:
    """Return a problem as an HTTP answer."""
    body = refusal.body(instance, trace_id)
    head = [status_line(refusal.status), b"content-type: %b\r\n" % refusal.media_type.encode()]
    head += [field_line(name, value) for name, value in refusal.headers]
    head.append(b"content-length: %d\r\n" % len(body))
    head.append(extra)
    if not keep:
        head.append(b"connection: close\r\n")
    head.append(b"\r\n")
    if not head_only:
        head.append(body)
    return b"".join(head)
