"""What an exception means to the client: the only place where one becomes a problem."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from backstay.auth import Forbidden as NotAllowed
from backstay.auth import InvalidToken, KeysUnavailable
from backstay.http.problems import DeadlineExceeded, FieldError, Forbidden, Problem, Unauthorized, Unavailable
from backstay.resilience import STOP_HEADER, Rejected, remaining
from backstay.resilience import DeadlineExceeded as TimeIsOver
from backstay.telemetry.logs import get_logger

log = get_logger()

TIMER_STEP = 0.002
"""Seconds by which a timer of the event loop may be early."""


def problem_of(error: Exception) -> Problem:
    """Return the problem that an exception is to the client; what nobody foresaw is logged here."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidToken):
        return invalid_token(error.reason)
    if isinstance(error, KeysUnavailable):
        return Unavailable("access tokens can't be checked at the moment", retry_after=error.retry_after)
    if isinstance(error, NotAllowed):
        return insufficient(error)
    if isinstance(error, (TimeoutError, TimeIsOver)):
        log.warning("http.timed-out", error=_told(error))
        return DeadlineExceeded("it took too long")
    if _is_passing(error) and _time_is_over():  # it was given no time, so it says nothing about what it needed
        log.warning("http.timed-out", error=_told(error))
        return DeadlineExceeded("it took too long")
    if isinstance(error, Rejected):
        return _away(error, error.retry_after or 1.0, headers={STOP_HEADER: "1"})
    if _is_passing(error):
        hint = {STOP_HEADER: "1"} if getattr(error, "do_not_retry", False) else None
        return _away(error, 1.0, headers=hint)  # who sheds load behind us isn't to be asked again through us
    if (foreign := _of_framework(error)) is not None:
        return foreign
    log.error("http.failed", error=_told(error), exc_info=error)
    return Problem(
        500, "internal-error", "Internal server error", "something went wrong; the trace id helps to find it"
    )


def _of_framework(error: Exception) -> Problem | None:
    """Return the problem in an HTTP error of Starlette, FastAPI or Litestar, which all have a status and a detail."""
    status, detail = getattr(error, "status_code", None), getattr(error, "detail", "")
    if not isinstance(status, int) or not 400 <= status <= 599:
        return None
    return of_status(status, detail if isinstance(detail, str) else "", headers=getattr(error, "headers", None))


def of_status(
    status: int, detail: str, *, errors: Iterable[FieldError] = (), headers: Mapping[str, str] | None = None
) -> Problem:
    """Return the problem of an error that is known by its status only; its slug is the status's phrase."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    slug, detail = phrase.lower().replace(" ", "-"), "" if detail == phrase else detail
    return Problem(status, slug, phrase, detail, errors=errors, headers=headers)


def invalid_token(reason: str) -> Unauthorized:
    """401 as RFC 6750 wants it."""
    described = reason.replace("\\", "").replace('"', "'")
    challenge = f'Bearer error="invalid_token", error_description="{described}"'
    printable = "".join(char for char in challenge if " " <= char <= "~")
    return Unauthorized(f"the access token is not acceptable: {reason}", headers={"WWW-Authenticate": printable})


def insufficient(error: NotAllowed) -> Forbidden:
    """403 as RFC 6750 wants it."""
    scope = f', scope="{error.scope}"' if error.scope else ""
    return Forbidden(str(error), headers={"WWW-Authenticate": f'Bearer error="insufficient_scope"{scope}'})


def _away(error: Exception, retry_after: float, headers: dict[str, str] | None = None) -> Unavailable:
    log.warning("http.unavailable", error=_told(error))
    return Unavailable("something this service needs is away for the moment", retry_after=retry_after, headers=headers)


def _is_passing(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    return isinstance(error, (Rejected, ConnectionError)) or getattr(error, "transient", False) is True


def _time_is_over() -> bool:
    """Return whether the deadline of the request that is answered has passed."""
    left = remaining()
    return left is not None and left <= TIMER_STEP


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


__all__ = ["insufficient", "invalid_token", "of_status", "problem_of"]
