"""What all policies have in common: each wraps a coroutine function and keeps its signature."""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Call = Callable[P, Awaitable[R]]
Guarded = Callable[P, Coroutine[Any, Any, R]]


class Policy(ABC):
    """One layer of protection. Use it as a decorator, or with `call` for a single call."""

    name: str

    @abstractmethod
    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """The guarded form of `call`; its coroutine is made only once the policy admits it."""

    def __call__(self, function: Call[P, R]) -> Guarded[P, R]:
        """Decorate `function`: `@policy` or `guarded = policy(function)`."""
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{self!r} guards coroutine functions; {function!r} is an asynchronous generator")
        return functools.wraps(function)(self.wrap(function))

    async def call(self, function: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make one guarded call. Decorate instead where the same function is called often."""
        return await self.wrap(function)(*args, **kwargs)
