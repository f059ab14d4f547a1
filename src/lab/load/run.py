"""Two kinds of load: closed, where each client waits for its answer, and open, where requests come at a rate.

A closed loop asks less while the system is slow, so it hides what customers would have waited (coordinated omission);
it measures the most that so many clients can get. The open loop sends at times fixed beforehand and measures each from
the time at which it was due, however late it could be sent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lab.load.histogram import Histogram, together
from lab.load.scenario import Outcome

DRAIN = 20.0  # seconds that requests in flight may take at the end


@dataclass(slots=True)
class Measured:
    """The results of a run. `seconds` is its length; latencies in seconds by action; statuses count everything."""

    seconds: float = 0.0
    latencies: dict[str, Histogram] = field(default_factory=dict)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    late: int = 0
    """Requests of an open loop that were still waiting for a free connection when it ended."""

    def record(self, outcome: Outcome, seconds: float) -> None:
        """One more answer."""
        self.statuses[outcome.action, outcome.status] += 1
        if outcome.good:
            self.latencies.setdefault(outcome.action, Histogram()).record(seconds)

    @property
    def all(self) -> Histogram:
        """Every good answer."""
        return together(self.latencies.values())

    @property
    def good(self) -> int:
        """The number of successful answers."""
        return sum(histogram.count for histogram in self.latencies.values())

    @property
    def bad(self) -> int:
        """Everything else."""
        return sum(self.statuses.values()) - self.good

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds if self.seconds else 0.0


async def closed(act: Callable[[], Awaitable[Outcome]], *, clients: int, seconds: float, measured: Measured) -> None:
    """So many clients, each asking again as soon as it is answered."""
    started = time.monotonic()
    until = started + seconds

    async def client() -> None:
        while (sent := time.monotonic()) < until:
            outcome = await act()
            measured.record(outcome, time.monotonic() - sent)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    measured.seconds = time.monotonic() - started


async def open_loop(
    act: Callable[[], Awaitable[Outcome]], *, rate: float, clients: int, seconds: float, measured: Measured
) -> None:
    """So many requests a second, each at its own time, over at most so many connections."""
    gate, tasks = asyncio.Semaphore(clients), set[asyncio.Task[None]]()
    started = time.monotonic()

    async def one(due: float) -> None:
        async with gate:
            outcome = await act()
        measured.record(outcome, time.monotonic() - due)

    for number in range(int(rate * seconds)):
        due = started + number / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    measured.seconds = max(time.monotonic() - started, seconds)
    if tasks:
        _, waiting = await asyncio.wait(set(tasks), timeout=DRAIN)
        measured.late = len(waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
