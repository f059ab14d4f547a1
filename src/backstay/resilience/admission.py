"""The one protocol of the policies that admit calls: acquire, make the call, settle.

Circuit breaker, bulkhead, rate limiter and time limiter say how they admit (`acquire`, or `wait` where that takes time)
and what the ending of a call means to them (`settle`). Everything that guards something (a coroutine function, a plain
one, a generator of either kind, a block) is here, once:

- What was acquired is settled exactly once, whatever ends the call, and in whatever task or thread.
- Nothing is acquired for a call that can't be made: the deadline has passed, or the block needs an event loop.
- A call made in an event loop ends at the request's deadline, by `DeadlineTimeout`.

A refusal is returned by `acquire` and raised here: each frame that an exception passes costs as much as a policy does.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing
from typing import Any, NamedTuple, ParamSpec, TypeVar

from backstay.resilience.deadline import check, scope, within_deadline
from backstay.resilience.policy import AsyncItems, Block, Call, Guarded, Items, Plain, Policy, gives_awaitable, misused

P = ParamSpec("P")
R = TypeVar("R")
Admitted = tuple[Any, ...]
"""What an admitted call is settled with; what is in it is the policy's business."""


class Admission(Policy):
    """A policy that admits each call, and learns how it ended."""

    @abstractmethod
    def acquire(self) -> Admitted | Exception | None:
        """Admit a call at once: a tuple to settle it with. An exception is the refusal; None: `wait` for it."""

    def functions(self) -> tuple[Callable[[], Any], Callable[..., None]]:
        """`acquire` and `settle`, for the hot path of a guarded function."""
        return self.acquire, self.settle

    async def wait(self, held: Any = None) -> Admitted:
        """Admit a call after waiting for it; raises the refusal. held: what `acquire` gave instead of a tuple.

        Called only where `acquire` asked for it, so a policy that never lets a call wait has none of its own.
        """
        raise NotImplementedError

    def wait_plain(self) -> Admitted:
        """Do as `wait`, blocking this thread."""
        raise NotImplementedError

    async def admitted(self) -> Admitted:
        """Admit a call, at once or after waiting; raises the refusal."""
        token = self.acquire()
        if isinstance(token, Exception):
            try:
                raise token
            finally:
                token = None
        return await self.wait() if token is None else token

    def admitted_plain(self) -> Admitted:
        """Do as `admitted`, blocking this thread."""
        token = self.acquire()
        if isinstance(token, Exception):
            try:
                raise token
            finally:
                token = None
        return self.wait_plain() if token is None else token

    @abstractmethod
    def settle(self, token: Any, error: BaseException | None, result: object = None) -> None:
        """Record the outcome of a call: `error`, or `result`. May raise another error in place of `error`."""

    def make_thread_safe(self) -> None:
        """Be used by several threads from now on."""

    # -- the forms that it guards ---------------------------------------------------------------------------------

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function."""
        return _coroutine(call, self)

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function, which several threads may call; waiting blocks its thread."""
        self.make_thread_safe()
        return _plain(call, self)

    def wrap_generator(self, call: AsyncItems[P, R]) -> AsyncItems[P, R]:
        """Guard an async generator as one call, from its first item to its end."""
        return async_generator(call, self)

    def wrap_plain_generator(self, call: Items[P, R]) -> Items[P, R]:
        """Guard a plain generator as one call, from its first item to its end."""
        self.make_thread_safe()
        return _generator(call, self)

    def block(self) -> Block:
        """Guard a block as one call."""
        return AdmittedBlock(self)


def _coroutine(call: Call[P, R], policy: Admission) -> Guarded[P, R]:
    acquire, settle = policy.functions()

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        run = call if scope() is None else within_deadline(call)
        token = acquire()
        if type(token) is not tuple:  # cheaper than isinstance
            if isinstance(token, Exception):
                try:
                    raise token
                finally:
                    token = None  # else this frame and its error would keep each other
            token = await policy.wait(token)
        try:
            result: R = await (run(*args, **kwargs) if kwargs else run(*args))  # type: ignore[call-arg]  # an empty ** is slow
        except BaseException as error:
            settle(token, error)
            raise
        settle(token, None, result)
        return result

    return guarded


def _plain(call: Callable[P, R], policy: Admission) -> Plain[P, R]:
    acquire, settle = policy.acquire, policy.settle

    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if scope() is not None:
            check()
        token = acquire()
        if type(token) is not tuple:
            if isinstance(token, Exception):
                try:
                    raise token
                finally:
                    token = None
            token = policy.wait_plain()
        try:
            result = call(*args, **kwargs)
            if gives_awaitable(result):
                raise misused(call)
        except BaseException as error:
            settle(token, error)
            raise
        settle(token, None, result)
        return result

    return guarded


def _generator(call: Items[P, R], policy: Admission) -> Items[P, R]:
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Generator[R, Any, Any]:
        check()
        token = policy.admitted_plain()
        try:
            result = yield from call(*args, **kwargs)
        except BaseException as error:
            policy.settle(token, error)
            raise
        policy.settle(token, None)
        return result

    return guarded


def async_generator(
    call: AsyncItems[P, R], policy: Admission | None, *, step: Callable[[Any], Any] | None = None
) -> AsyncItems[P, R]:
    """Return the guarded form of an async generator; `step` guards each of the calls that return an item."""
    guard = step or (lambda bring: bring)

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
        check()
        token = await policy.admitted() if policy is not None else ()
        try:
            async with aclosing(call(*args, **kwargs)) as items:
                send, throw = guard(items.asend), guard(items.athrow)
                bring, given = send, None
                while True:
                    try:
                        run = bring if scope() is None else within_deadline(bring)
                        item = await run(given)
                    except StopAsyncIteration:
                        break
                    try:
                        given = yield item
                        bring = send
                    except GeneratorExit:
                        raise  # it is closed on the way out
                    except BaseException as error:  # noqa: BLE001 - thrown in from outside: the generator's to answer
                        bring, given = throw, error
        except BaseException as error:
            if policy is not None:
                policy.settle(token, error)
            raise
        if policy is not None:
            policy.settle(token, None)

    return guarded


class Stack(Admission):
    """Two admissions as one: one shell around a coroutine function instead of two.

    The outer one is acquired first and settled last, with what the inner one has made of the ending, as if nested.
    """

    def __init__(self, outer: Admission, inner: Admission) -> None:
        self._outer, self._inner = outer, inner
        self._acquire_outer, self._settle_outer = outer.functions()
        self._acquire_inner, self._settle_inner = inner.functions()

    def acquire(self) -> Any:
        """Acquire both; `_Held` where one of them has to wait."""
        outer = self._acquire_outer()
        if type(outer) is not tuple:
            return outer if isinstance(outer, Exception) else _Held(None, outer)
        try:
            inner = self._acquire_inner()
        except BaseException as error:
            self._settle_outer(outer, error)
            raise
        if type(inner) is tuple:
            return outer, inner
        if not isinstance(inner, Exception):
            return _Held(outer, inner)
        self._settle_outer(outer, inner)
        return inner

    async def wait(self, held: Any = None) -> Admitted:
        """Acquire what isn't held yet, waiting where need be."""
        outer = held.outer
        if outer is None:
            outer = await self._outer.wait(held.waiting)
            return outer, await self._wait_inner(outer, self._inner.admitted())
        return outer, await self._wait_inner(outer, self._inner.wait(held.waiting))

    async def _wait_inner(self, outer: Admitted, wait: Awaitable[Admitted]) -> Admitted:
        try:
            return await wait
        except BaseException as error:
            self._settle_outer(outer, error)
            raise

    def settle(self, token: Any, error: BaseException | None, result: object = None) -> None:
        """Settle both, the inner one first."""
        outer, inner = token
        try:
            self._settle_inner(inner, error, result)
        except BaseException as other:  # in place of the former ending
            self._settle_outer(outer, other)
            raise
        self._settle_outer(outer, error, result)


class _Held(NamedTuple):
    """The part of a stack that is acquired, and the result of the admission that has to wait."""

    outer: Admitted | None
    waiting: Any


class AdmittedBlock(Block):
    """A block that is admitted, and whose ending is settled: its normal end is a success."""

    def __init__(self, policy: Admission) -> None:
        self._policy = policy
        self._token: Any = None

    async def enter(self) -> Any:
        check()
        self._token = await self._policy.admitted()

    def enter_plain(self) -> Any:
        check()
        self._policy.make_thread_safe()
        self._token = self._policy.admitted_plain()

    def leave_plain(self, error: BaseException | None) -> None:
        token, self._token = self._token, None
        if token is None:
            raise RuntimeError(f"a block of {self._policy!r} was left more often than entered")
        self._policy.settle(token, error)


__all__ = ["Admission", "Admitted", "AdmittedBlock", "Stack", "async_generator"]
