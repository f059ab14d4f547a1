"""Bulkhead: a bound on calls in flight, so that one slow dependency can't take every worker."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from backstay.resilience import events
from backstay.resilience.config import Seconds, check, in_seconds, whole, within
from backstay.resilience.errors import BulkheadFull
from backstay.resilience.exact import exact
from backstay.resilience.policy import Block, Call, Generator, Guarded, Plain, Policy

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

DEFAULT_MAX_CALLS = 25


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot: how many calls are in flight, wait, and were refused."""

    max_concurrent_calls: int
    in_flight: int
    waiting: int
    rejected_total: int


class Place:
    """A place that a caller waits for: a task of an event loop, or a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self.given = False
        self.come: Any = threading.Event() if loop is None else loop.create_future()

    def give(self) -> None:
        """Let its caller go on; callable from any thread."""
        self.given = True
        if self._loop is None:
            self.come.set()
        elif self._loop is _running_loop():
            self._wake()
        else:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.come.done():
            self.come.set_result(None)


class Bulkhead(Policy):
    """At most `max_calls` calls in flight; others wait up to `max_wait` seconds, in order, then are refused.

    `max_calls` of 0 refuses all. threads: used by several event loops or threads; around a plain function it is so by
    itself.
    """

    def __init__(
        self,
        max_calls: int = DEFAULT_MAX_CALLS,
        *,
        max_wait: Seconds = 0.0,
        name: str = "bulkhead",
        threads: bool = False,
    ) -> None:
        self.max_wait = in_seconds(max_wait)
        check(
            f"Bulkhead '{name}'",
            (whole(max_calls, 0), f"max_calls: {max_calls!r} is not a whole number of at least 0"),
            (self.max_wait == 0 or within(self.max_wait, 0), f"max_wait: {max_wait!r} is not 0 or more seconds"),
        )
        self.name = name
        self.max_calls = max_calls
        self.in_flight = 0
        self.free = max_calls  # places that may be taken without asking: none while somebody waits, or with threads
        self._rejected = 0
        self._waiting: deque[Place] = deque()
        self._events = events.Publisher()
        self._lock: AbstractContextManager[Any] = nullcontext()
        if threads:
            self.share()

    def share(self) -> None:
        """Be used by several event loops or threads from now on."""
        if isinstance(self._lock, nullcontext):
            self._lock = threading.RLock()
            self.free = 0

    # -- guarding -------------------------------------------------------------------------------------------------

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with this bound."""
        guarded: Guarded[P, R] = exact(_around, call, self)
        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function; waiting blocks its thread."""
        self.share()
        guarded: Plain[P, R] = exact(_around_plain, call, self)
        return guarded

    def wrap_generator(self, call: Generator[P, R]) -> Generator[P, R]:
        """Guard an async generator: it holds its place from its first item to its end."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
            await self.enter()
            try:
                async with aclosing(call(*args, **kwargs)) as items:
                    async for item in items:
                        yield item
            finally:
                self.leave()

        return guarded

    def block(self) -> Block:
        """Guard a block with this bound."""
        return _Bounded(self)

    # -- places ---------------------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Take a place, waiting for one if need be; raises `BulkheadFull` when there is none in time."""
        place = self._ask(asyncio.get_running_loop())
        if place is None:
            return
        try:
            async with asyncio.timeout(self.max_wait):
                await place.come
        except BaseException as error:
            self._give_up(place)
            if isinstance(error, TimeoutError):
                self._refuse()
            raise

    def enter_plain(self) -> None:
        """The same, blocking this thread."""
        place = self._ask(None)
        if place is not None and not place.come.wait(self.max_wait):
            self._give_up(place)
            self._refuse()

    def leave(self) -> None:
        """Give the place back, or hand it to the first who waits."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().give()  # hands the place over: the number in flight stays
                self._count_waiting()
            else:
                self.in_flight -= 1

    def _ask(self, loop: asyncio.AbstractEventLoop | None) -> Place | None:
        """None if a place was taken, else what to wait for."""
        with self._lock:
            if self.in_flight < self.max_calls and not self._waiting:
                self.in_flight += 1
                return None
            if self.max_wait <= 0 or self.max_calls == 0:
                self._refuse()
            place = Place(loop)
            self._waiting.append(place)
            self._count_waiting()
            return place

    def _give_up(self, place: Place) -> None:
        """Its caller doesn't wait any more; a place that came at the same moment is passed on."""
        with self._lock:
            if place.given:
                self.leave()
            else:
                self._waiting.remove(place)
                self._count_waiting()

    def _count_waiting(self) -> None:
        if isinstance(self._lock, nullcontext):
            self.free = 0 if self._waiting else self.max_calls

    def _refuse(self) -> None:
        self._rejected += 1
        self._events.emit(events.BulkheadRejected, self.name)
        raise BulkheadFull(self.name)

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> BulkheadStatistics:
        """A snapshot."""
        return BulkheadStatistics(self.max_calls, self.in_flight, len(self._waiting), self._rejected)

    def __repr__(self) -> str:
        return f"Bulkhead({self.max_calls}, max_wait={self.max_wait:g})"


class _Bounded(Block):
    """A block in a bulkhead."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self._bulkhead = bulkhead

    async def enter(self) -> None:
        await self._bulkhead.enter()

    def enter_plain(self) -> None:
        self._bulkhead.share()
        self._bulkhead.enter_plain()

    def leave_plain(self, error: BaseException | None) -> None:  # noqa: ARG002 - a place is a place
        self._bulkhead.leave()


def _around(call: Call[P, R], bulkhead: Bulkhead) -> Guarded[P, R]:
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if bulkhead.in_flight < bulkhead.free:
            bulkhead.in_flight += 1
        else:
            await bulkhead.enter()
        try:
            return await call(*args, **kwargs)
        finally:
            if bulkhead.free:
                bulkhead.in_flight -= 1
            else:
                bulkhead.leave()

    return guarded


def _around_plain(call: Callable[P, R], bulkhead: Bulkhead) -> Plain[P, R]:
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        bulkhead.enter_plain()
        try:
            return call(*args, **kwargs)
        finally:
            bulkhead.leave()

    return guarded


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


__all__ = ["Bulkhead", "BulkheadStatistics"]
