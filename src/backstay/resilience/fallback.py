"""Fallback: another answer when the call fails, chosen by the type of the error, nearest superclass first."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience.policy import Call, Guarded, Policy

P = ParamSpec("P")
R = TypeVar("R")

Handler = Callable[..., Any]


class Fallback(Policy):
    """`handlers` maps exception types to functions `(error, *arguments of the call)`, plain or asynchronous.

    An error without a handler is raised unchanged; a handler's own error replaces it. A cancellation is no error.
    """

    def __init__(self, handlers: Mapping[type[Exception], Handler], *, name: str = "fallback") -> None:
        if not handlers:
            raise ConfigError([f"Fallback '{name}': no handlers; give at least one exception type"])
        wrong = [kind for kind in handlers if not (isinstance(kind, type) and issubclass(kind, Exception))]
        if wrong:
            raise ConfigError([f"Fallback '{name}': {kind!r} is not an exception type" for kind in wrong])
        self.name = name
        self._handlers = dict(handlers)
        self.handled = 0  # errors that were answered by a handler

    def handler_for(self, error: Exception) -> Handler | None:
        """The handler of the nearest superclass of the error's type, if there is one."""
        for kind in type(error).__mro__:
            if kind in self._handlers:
                return self._handlers[kind]
        return None

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard `call` with these handlers."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await call(*args, **kwargs)
            except Exception as error:
                handler = self.handler_for(error)
                if handler is None:
                    raise
                self.handled += 1
                answer = handler(error, *args, **kwargs)
            result: R = await answer if inspect.isawaitable(answer) else answer
            return result

        return guarded

    def __repr__(self) -> str:
        return f"Fallback({', '.join(kind.__name__ for kind in self._handlers)})"


def fallback(handlers: Mapping[type[Exception], Handler]) -> Fallback:
    """A decorator: `@fallback({TimeoutError: assume_some})`."""
    return Fallback(handlers)


__all__ = ["Fallback", "fallback"]
