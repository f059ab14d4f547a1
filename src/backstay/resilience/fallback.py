"""Fallback: another answer when the call fails, chosen by the type of the error, nearest superclass first."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience import events
from backstay.resilience.policy import Call, Guarded, Plain, Policy, gives_awaitable, misused
from backstay.resilience.verdict import members

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

Handler = Callable[..., Any]


class Fallback(Policy):
    """`handlers` maps exception types to functions `(error, *arguments of the call)`, plain or asynchronous.

    An error without a handler is raised unchanged; a handler's own error replaces it. A cancellation is no error. A
    group of errors is answered if each of its members would be: by the handler of the first, which gets the group.
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

    def handler_for(self, error: BaseException) -> Handler | None:
        """Return the handler of the nearest superclass of the error's type, if there is one."""
        if isinstance(error, BaseExceptionGroup) and not any(
            issubclass(kind, BaseExceptionGroup) and isinstance(error, kind) for kind in self._handlers
        ):
            handlers = [self.handler_for(each) for each in members(error)]
            return handlers[0] if all(handlers) else None
        for kind in type(error).__mro__:
            if kind in self._handlers:
                return self._handlers[kind]
        return None

    def take(self, error: Exception, handler: Handler, *args: Any, **kwargs: Any) -> Any:
        """Return the handler's answer, or an awaitable of it."""
        self.handled += 1
        self._events.emit(events.FallbackTaken, self.name, error=error)
        return handler(error, *args, **kwargs)

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with these handlers."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await (call(*args, **kwargs) if kwargs else call(*args))  # type: ignore[call-arg]  # an empty ** is slow
            except Exception as error:
                handler = self.handler_for(error)
                if handler is None:
                    raise
                answer = self.take(error, handler, *args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer  # type: ignore[no-any-return]

        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function; its handlers must be plain, too."""
        slow = [each for each in self._handlers.values() if inspect.iscoroutinefunction(each)]
        if slow:
            raise ConfigError([f"Fallback '{self.name}': {each!r} is asynchronous, {call!r} is not" for each in slow])

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                result = call(*args, **kwargs)
                if gives_awaitable(result):
                    raise misused(call)
            except Exception as error:
                handler = self.handler_for(error)
                if handler is None:
                    raise
                answer: R = self.take(error, handler, *args, **kwargs)
                if gives_awaitable(answer):
                    raise misused(handler) from error
                return answer
            return result

        return guarded

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def __repr__(self) -> str:
        return f"Fallback({', '.join(kind.__name__ for kind in self._handlers)})"


def fallback(handlers: Mapping[type[Exception], Handler]) -> Fallback:
    """Return a decorator: `@fallback({TimeoutError: assume_some})`."""
    return Fallback(handlers)


__all__ = ["Fallback", "fallback"]
