"""Fallback: another answer when the call fails, chosen by the type of the error, nearest superclass first."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience import events
from backstay.resilience.exact import exact
from backstay.resilience.policy import Call, Guarded, Plain, Policy

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

Handler = Callable[..., Any]


class Fallback(Policy):
    """`handlers` maps exception types to functions `(error, *arguments of the call)`, plain or asynchronous.

    An error without a handler is raised unchanged; a handler's own error replaces it. A cancellation is no error.
    """

    def __init__(self, handlers: Mapping[type[Exception], Handler], *, name: str = "fallback") -> None:
        if not handlers:
            raise ConfigError([f"Fallback '{name}': no handlers; give at least one exception type"])
        wrong = [kind for kind in handlers if not (isinstance(kind, type) and issubclass(kind, Exception))]
        mute = [handler for handler in handlers.values() if not callable(handler)]
        if wrong or mute:
            problems = [f"Fallback '{name}': {kind!r} is not an exception type" for kind in wrong]
            raise ConfigError([*problems, *(f"Fallback '{name}': {each!r} is not a function" for each in mute)])
        self.name = name
        self._handlers = dict(handlers)
        self._events = events.Publisher()
        self.handled = 0  # errors that were answered by a handler

    def handler_for(self, error: Exception) -> Handler | None:
        """The handler of the nearest superclass of the error's type, if there is one."""
        for kind in type(error).__mro__:
            if kind in self._handlers:
                return self._handlers[kind]
        return None

    def take(self, error: Exception, handler: Handler, *args: Any, **kwargs: Any) -> Any:
        """The handler's answer, or an awaitable of it."""
        self.handled += 1
        self._events.emit(events.FallbackTaken, self.name, error=error)
        return handler(error, *args, **kwargs)

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with these handlers."""
        guarded: Guarded[P, R] = exact(_around, call, self)
        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function; its handlers must be plain, too."""
        slow = [each for each in self._handlers.values() if inspect.iscoroutinefunction(each)]
        if slow:
            raise ConfigError([f"Fallback '{self.name}': {each!r} is asynchronous, {call!r} is not" for each in slow])
        guarded: Plain[P, R] = exact(_around_plain, call, self)
        return guarded

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def __repr__(self) -> str:
        return f"Fallback({', '.join(kind.__name__ for kind in self._handlers)})"


def _around(call: Call[P, R], fallback: Fallback) -> Guarded[P, R]:
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        except Exception as error:
            handler = fallback.handler_for(error)
            if handler is None:
                raise
            answer: Awaitable[R] | R = fallback.take(error, handler, *args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    return guarded


def _around_plain(call: Callable[P, R], fallback: Fallback) -> Plain[P, R]:
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            handler = fallback.handler_for(error)
            if handler is None:
                raise
            answer: R = fallback.take(error, handler, *args, **kwargs)
            return answer

    return guarded


def fallback(handlers: Mapping[type[Exception], Handler]) -> Fallback:
    """A decorator: `@fallback({TimeoutError: assume_some})`."""
    return Fallback(handlers)


__all__ = ["Fallback", "fallback"]
