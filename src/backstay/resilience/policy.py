"""What all policies have in common: each wraps a coroutine function or a plain one, and keeps its signature."""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, cast, overload

P = ParamSpec("P")
R = TypeVar("R")
Call = Callable[P, Awaitable[R]]
Guarded = Callable[P, Coroutine[Any, Any, R]]
Plain = Callable[P, R]


class Policy(ABC):
    """One layer of protection. Use it as a decorator, or with `call` for a single call."""

    name: str

    @abstractmethod
    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """The guarded form of a coroutine function; its coroutine is made only once the policy admits it."""

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """The guarded form of a plain function, safe to call from several threads."""
        raise TypeError(f"{self!r} guards coroutine functions only, and {call!r} is none")

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Decorate `function`: `@policy` or `guarded = policy(function)`."""
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{self!r} guards functions that give one result; {function!r} is an async generator")
        wrapped = self.wrap(function) if is_coroutine_function(function) else self.wrap_plain(function)
        return cast("Callable[P, Any]", functools.wraps(function)(wrapped))

    async def call(self, function: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make one guarded call. Decorate instead where the same function is called often."""
        return await self.wrap(function)(*args, **kwargs)


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: also for an object with an asynchronous `__call__`, or a partial of one."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


__all__ = ["Call", "Guarded", "Plain", "Policy", "is_coroutine_function"]
