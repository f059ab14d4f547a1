"""What all policies have in common: each wraps a function of any kind, and keeps its signature.

A policy says how it guards a coroutine function (`wrap`), a plain one (`wrap_plain`), an async generator
(`wrap_generator`) and a block (`block`); one that can't raises `TypeError` when it is asked, never later.
"""

import asyncio
import functools
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Hashable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

P = ParamSpec("P")
R = TypeVar("R")
Call = Callable[P, Awaitable[R]]
Guarded = Callable[P, Coroutine[Any, Any, R]]
Plain = Callable[P, R]
Generator = Callable[P, AsyncGenerator[R, Any]]


class Policy(ABC):
    """One layer of protection: a decorator, a block (`async with`, and `with` where nothing waits), or `call`."""

    name: str

    @abstractmethod
    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """The guarded form of a coroutine function; its coroutine is made only once the policy admits it."""

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """The guarded form of a plain function, safe to call from several threads."""
        raise TypeError(f"{self!r} guards coroutine functions only, and {call!r} is none")

    def wrap_generator(self, call: Generator[P, R]) -> Generator[P, R]:
        """The guarded form of an async generator."""
        raise TypeError(f"{self!r} guards functions that give one result; {call!r} is an async generator")

    def block(self) -> "Block":
        """Guard one block: `async with policy.block():`; `async with policy:` is the same."""
        raise TypeError(f"{self!r} can't guard a block, for a block can't be run again or answered for: use a function")

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Decorate `function`: `@policy` or `guarded = policy(function)`."""
        wrapped: Callable[P, Any]
        if inspect.isasyncgenfunction(function):
            wrapped = self.wrap_generator(function)
        elif is_coroutine_function(function):
            wrapped = self.wrap(function)
        else:
            wrapped = self.wrap_plain(function)
        return functools.wraps(function)(wrapped)

    async def call(self, function: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make one guarded call. Decorate instead where the same function is called often."""
        return await self.wrap(function)(*args, **kwargs)

    def call_plain(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make one guarded call of a plain function."""
        return self.wrap_plain(function)(*args, **kwargs)

    async def __aenter__(self) -> Any:
        block = self.block()
        entered = await block.__aenter__()
        _blocks(self).setdefault(_owner(), []).append(block)
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _leave(self).__aexit__(kind, error, trace)

    def __enter__(self) -> Any:
        block = self.block()
        entered = block.__enter__()
        _blocks(self).setdefault(_owner(), []).append(block)
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _leave(self).__exit__(kind, error, trace)


class Block(AbstractAsyncContextManager[Any], AbstractContextManager[Any]):
    """One guarded block; made for one use. `enter` and `leave` may wait; their plain twins may not."""

    async def enter(self) -> Any:
        """Be admitted."""
        return self.enter_plain()

    async def leave(self, error: BaseException | None) -> None:
        """The block ended, with this error if any."""
        self.leave_plain(error)

    def enter_plain(self) -> Any:
        """Be admitted, without an event loop."""
        raise TypeError(f"{type(self).__name__} needs `async with`")

    def leave_plain(self, error: BaseException | None) -> None:  # noqa: ARG002 - for those who can
        """The block ended, with this error if any."""
        raise TypeError(f"{type(self).__name__} needs `async with`")

    async def __aenter__(self) -> Any:
        return await self.enter() or self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave(error)

    def __enter__(self) -> Any:
        return self.enter_plain() or self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave_plain(error)


class Blocks(dict[Hashable, list[Block]]):
    """The blocks of a policy that are being run, by task or thread, the innermost last."""


def _blocks(policy: Policy) -> Blocks:
    return cast(Blocks, policy.__dict__.setdefault("_entered", Blocks()))


def _leave(policy: Policy) -> Block:
    blocks, owner = _blocks(policy), _owner()
    block = blocks[owner].pop()
    if not blocks[owner]:
        del blocks[owner]
    return block


def _owner() -> Hashable:
    try:
        return asyncio.current_task() or threading.get_ident()
    except RuntimeError:
        return threading.get_ident()


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: also for an object with an asynchronous `__call__`, or a partial of one."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


__all__ = ["Block", "Call", "Generator", "Guarded", "Plain", "Policy", "is_coroutine_function"]
