"""Functions given by users (predicates, wait functions), called before any state changes.

One that raises changes nothing but the question it was asked: the call's own result or error still reaches the caller.
The failure is logged once for each kind, and noted on the call's error.
"""

import logging
from collections.abc import Callable
from typing import Any

MAX_REPORTED = 500  # kinds of failures that are remembered as logged
_log = logging.getLogger("backstay.resilience")
_reported: set[tuple[str, type[BaseException]]] = set()


def ask(function: Callable[..., Any], what: str, default: Any, *args: Any, about: object = None) -> Any:
    """Return `function(*args)`, or `default` if it raises an `Exception`; `what` names the function in the log.

    `about`: the outcome that it was asked about; an exception gets a note.
    """
    try:
        return function(*args)
    except Exception as error:  # noqa: BLE001 - reported; the call's own outcome goes first
        report(what, error, about)
        return default


def report(what: str, error: BaseException, about: object = None) -> None:
    """Log that a user's function failed, and add a note to the error it was given."""
    if isinstance(about, BaseException):
        about.add_note(f"{what} raised {error!r}")
    key = what, type(error)
    if key not in _reported and len(_reported) < MAX_REPORTED:
        _reported.add(key)
        _log.warning("resilience.function_failed %s: %r", what, error, exc_info=error)


__all__ = ["ask", "report"]
