"""The common part of all policies: each wraps a function of any kind, and keeps its signature.

A policy says how it guards a coroutine function (`wrap`), a plain one (`wrap_plain`), an async generator
(`wrap_generator`), a plain generator (`wrap_plain_generator`) and a block (`block`). One that can't, and a function
whose kind can't be told, raise `TypeError` when it is asked, never later: no function is silently unguarded.
"""

import functools
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import FrameType, FunctionType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

from backstay.resilience.errors import Misused

P = ParamSpec("P")
R = TypeVar("R")
Call = Callable[P, Awaitable[R]]
Guarded = Callable[P, Coroutine[Any, Any, R]]
Plain = Callable[P, R]
AsyncItems = Callable[P, AsyncGenerator[R, Any]]
Items = Callable[P, Generator[R, Any, Any]]


class Policy(ABC):
    """One layer of protection: a decorator, a block (`async with`, and `with` where nothing waits), or `call`."""

    name: str

    @abstractmethod
    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Return the guarded form of a coroutine function; its coroutine is created only once the policy admits it."""

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Return the guarded form of a plain function, safe to call from several threads."""
        raise TypeError(f"{self!r} guards coroutine functions only, and {call!r} is none")

    def wrap_generator(self, call: AsyncItems[P, R]) -> AsyncItems[P, R]:
        """Return the guarded form of an async generator."""
        raise TypeError(f"{self!r} guards functions that give one result; {call!r} is an async generator")

    def wrap_plain_generator(self, call: Items[P, R]) -> Items[P, R]:
        """Return the guarded form of a plain generator, safe to use from several threads."""
        raise TypeError(f"{self!r} guards functions that give one result; {call!r} is a generator")

    def block(self) -> "Block":
        """Guard one block: `async with policy.block():`; `async with policy:` is the same."""
        raise TypeError(f"{self!r} can't guard a block, for a block can't be run again or answered for: use a function")

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Decorate `function`: `@policy` or `guarded = policy(function)`.

        Raises `TypeError` for a plain function around a coroutine function or generator, whose outcome it can't see.
        """
        if isinstance(function, staticmethod | classmethod):
            return type(function)(self(function.__func__))
        wrapped: Callable[P, Any]
        if is_async_generator_function(function):
            wrapped = self.wrap_generator(function)
        elif is_coroutine_function(function):
            wrapped = self.wrap(function)
        elif is_generator_function(function):
            wrapped = self.wrap_plain_generator(function)
        else:
            _refuse_hidden(function)
            wrapped = self.wrap_plain(function)
        return functools.wraps(function)(wrapped)

    async def call(self, function: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make one guarded call; `function` may be any that gives an awaitable.

        Raises `TypeError` for one that gives none; no policy counts that. Decorate where the same is called often.
        """
        if is_coroutine_function(function):
            return await self.wrap(function)(*args, **kwargs)
        if is_async_generator_function(function) or is_generator_function(function):
            raise TypeError(f"{function!r} is a generator: decorate it, and iterate over the result")
        result: R = await self.wrap(awaited(function))(*args, **kwargs)
        return result

    def call_plain(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Make one guarded call of a plain function; raises `TypeError` for a coroutine function or generator."""
        _refuse_awaitable(function)
        return self.wrap_plain(function)(*args, **kwargs)

    def __aenter__(self) -> Awaitable[Any]:
        return _enter(self, self.block(), sys._getframe(1))

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Awaitable[bool | None]:
        return _uses(self).take(sys._getframe(1)).__aexit__(kind, error, trace)

    def __enter__(self) -> Any:
        block = self.block()
        entered = block.__enter__()
        _uses(self).add(sys._getframe(1), block)
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _uses(self).take(sys._getframe(1)).__exit__(kind, error, trace)


class Block(AbstractAsyncContextManager[Any], AbstractContextManager[Any]):
    """One guarded block; made for one use. `enter` and `leave` may wait; their plain twins may not."""

    async def enter(self) -> Any:
        """Be admitted."""
        return self.enter_plain()

    async def leave(self, error: BaseException | None) -> None:
        """Record the end of the block, with its error if any."""
        self.leave_plain(error)

    def check_plain(self) -> None:
        """Raise `TypeError` if it needs an event loop, before anything is taken."""

    def enter_plain(self) -> Any:
        """Be admitted, without an event loop."""
        raise TypeError(f"{type(self).__name__} needs `async with`")

    def leave_plain(self, error: BaseException | None) -> None:  # noqa: ARG002 - for those who can
        """Record the end of the block, with its error if any."""
        raise TypeError(f"{type(self).__name__} needs `async with`")

    async def __aenter__(self) -> Any:
        return await self.enter() or self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave(error)

    def __enter__(self) -> Any:
        self.check_plain()
        return self.enter_plain() or self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave_plain(error)


class Uses:
    """The blocks that run in `with policy:`, each known by the frame that entered it.

    A `with` statement is entered and left by the same frame, whichever task or thread runs it: that of a generator
    may be left by another. A block entered by a helper, such as `ExitStack.enter_context`, has no frame to be known
    by; then the one entered last from the same file is left. `policy.block()` needs none of this.
    """

    __slots__ = ("_blocks",)

    def __init__(self) -> None:
        self._blocks: list[tuple[FrameType, Block]] = []

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, frame: FrameType, block: Block) -> None:
        """`frame` has entered `block`."""
        self._blocks.append((frame, block))

    def take(self, frame: FrameType) -> Block:
        """Return the block that `frame` leaves; raises `RuntimeError` if there is none."""
        entered = [each for each in tuple(self._blocks) if each[0] is frame]
        if not entered:
            file = frame.f_code.co_filename
            entered = [each for each in tuple(self._blocks) if each[0].f_code.co_filename == file]
        try:
            found = (entered or self._blocks)[-1]
            self._blocks.remove(found)
        except (IndexError, ValueError):
            raise RuntimeError("a policy's block was left more often than entered") from None
        return found[1]


def _uses(policy: Policy) -> Uses:
    return cast(Uses, policy.__dict__.setdefault("_entered", Uses()))


async def _enter(policy: Policy, block: Block, frame: FrameType) -> Any:
    entered = await block.__aenter__()
    _uses(policy).add(frame, block)
    return entered


# -- kinds of functions ---------------------------------------------------------------------------------------------


def _form(test: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return test(function) or test(getattr(function, "__call__", None))  # noqa: B004 - an object with such a method


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it returns a coroutine: also an object with an asynchronous `__call__`, or a partial."""
    return _form(inspect.iscoroutinefunction, function)


def is_async_generator_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives an async generator."""
    return _form(inspect.isasyncgenfunction, function)


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Return whether calling it gives a plain generator."""
    return _form(inspect.isgeneratorfunction, function)


def gives_awaitable(result: object) -> bool:
    """Return whether a plain function returned an awaitable; a coroutine is closed, since it is never awaited."""
    if not hasattr(type(result), "__await__"):
        return False
    if inspect.iscoroutine(result):
        result.close()
    return True


def misused(function: object) -> Misused:
    """Return the error for a plain function that returned an awaitable."""
    return Misused(
        f"{function!r} was guarded as a plain function and gave an awaitable, whose outcome nobody sees: "
        "guard the coroutine function itself, or make this one `async def`"
    )


def awaited(function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a coroutine function around one that returns awaitables; it raises `Misused` for any other result."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        if not inspect.isawaitable(made):
            raise Misused(f"{function!r} is a plain function: it gave {type(made).__name__}. Use `call_plain`")
        return await made

    return call


def _refuse_awaitable(function: Callable[..., Any]) -> None:
    if is_coroutine_function(function) or is_async_generator_function(function):
        raise TypeError(f"{function!r} is asynchronous, so a plain call sees nothing of its outcome: use `await call`")
    if is_generator_function(function):
        raise TypeError(f"{function!r} is a generator: decorate it, and iterate over the result")


def _refuse_hidden(function: Callable[..., Any]) -> None:
    """Refuse a plain function that wraps (`functools.wraps`) what gives its outcome later."""
    inner = inspect.unwrap(function)
    if inner is function or not isinstance(function, FunctionType):
        return
    if is_async_generator_function(inner) or is_generator_function(inner):
        raise TypeError(
            f"{function!r} wraps the generator {inner!r}, so nothing is seen of its outcome: "
            "put the policy below, next to the generator (@asynccontextmanager above @policy)"
        )
    if is_coroutine_function(inner):
        raise TypeError(
            f"{function!r} is a plain function around the coroutine function {inner!r}, so nothing is seen of its "
            "outcome: make it `async def`, or put the policy below, next to the coroutine function"
        )


__all__ = [
    "AsyncItems",
    "Block",
    "Call",
    "Guarded",
    "Items",
    "Plain",
    "Policy",
    "Uses",
    "awaited",
    "gives_awaitable",
    "is_coroutine_function",
    "misused",
]
