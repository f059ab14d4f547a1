"""The hand that does it: every accident that can befall the processes and connections of a system, and its end."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from lab.system.instances import service_of
from lab.system.system import System

ALIVE_TIMEOUT = 15.0  # seconds that a process has to be there before something can befall it
POLL = 0.05  # seconds


class Hand:
    """Accidents on one system that this process runs. A `who` is a list of processes; None means all of them."""

    def __init__(self, system: System, faults: Path | None = None) -> None:
        """`faults` is the folder of fault files that the services read."""
        self._system, self._faults = system, faults

    def processes(self, service: str) -> list[str]:
        """All processes of a service, or the one of that name."""
        names = self._system.supervisor.names()
        return [name for name in names if name == service or service_of(name) == service]

    async def kill(self, name: str) -> None:
        """kill -9; the supervisor starts it again."""
        await self._alive(name)
        self._system.supervisor.kill(name, signal.SIGKILL)

    async def end(self, name: str, number: int) -> None:
        """Send another signal: SIGTERM for an ordered end, SIGQUIT for PostgreSQL's immediate stop."""
        await self._alive(name)
        self._system.supervisor.kill(name, number)

    @asynccontextmanager
    async def paused(self, name: str) -> AsyncIterator[None]:
        """SIGSTOP, and SIGCONT in the end."""
        await self._alive(name)
        self._system.supervisor.kill(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self._system.supervisor.kill(name, signal.SIGCONT)

    @asynccontextmanager
    async def stopped(self, names: Sequence[str]) -> AsyncIterator[None]:
        """Stopped in order and not started again before the end."""
        supervisor = self._system.supervisor
        await asyncio.gather(*map(supervisor.stop, names))
        try:
            yield
        finally:
            await asyncio.gather(*map(supervisor.start, names))

    @asynccontextmanager
    async def retold(self, names: Sequence[str], **env: str) -> AsyncIterator[None]:
        """Started again with other settings, and once more without them in the end."""
        try:
            await self._again(names, env)
            yield
        finally:
            await self._again(names, dict.fromkeys(env))

    @asynccontextmanager
    async def armed(self, names: Sequence[str], *entries: str) -> AsyncIterator[None]:
        """Fault points armed in processes, see `backstay.faults`."""
        if self._faults is None:
            raise RuntimeError("the services of this system don't read fault files")
        self._faults.mkdir(parents=True, exist_ok=True)
        for name in names:
            half = self._faults / f"{name}.new"
            half.write_text("\n".join(entries))
            half.rename(self._faults / name)
        try:
            yield
        finally:
            for name in names:
                (self._faults / name).unlink(missing_ok=True)
                (self._faults / f"{name}.spent").unlink(missing_ok=True)

    def cut(self, door: str, who: Collection[str] | None = None) -> int:
        """Reset connections to `kafka` or `postgres`; returns how many it were."""
        return self._system.door(door).cut(who)

    @contextlib.contextmanager
    def shut(self, door: str, who: Collection[str] | None = None) -> Iterator[None]:
        """No connection to `kafka` or `postgres` as long as it lasts."""
        with self._system.door(door).trouble("refuse", who):
            yield

    @contextlib.contextmanager
    def held(self, door: str, who: Collection[str] | None = None) -> Iterator[None]:
        """Connections stay and carry nothing."""
        with self._system.door(door).trouble("hold", who):
            yield

    @contextlib.contextmanager
    def slowed(self, door: str, seconds: float, who: Collection[str] | None = None) -> Iterator[None]:
        """Every byte takes so much longer, each way."""
        with self._system.door(door).trouble("delay", who, delay=seconds):
            yield

    async def _again(self, names: Sequence[str], env: dict[str, str] | dict[str, None]) -> None:
        supervisor = self._system.supervisor
        for name in names:
            await supervisor.stop(name)
            supervisor.retell(name, **env)
            await supervisor.start(name)

    async def _alive(self, name: str) -> None:
        until = time.monotonic() + ALIVE_TIMEOUT
        while self._system.supervisor.pid_of(name) is None:
            if time.monotonic() > until:
                raise RuntimeError(f"{name} hasn't been there for {ALIVE_TIMEOUT:g} s: nothing can befall it")
            await asyncio.sleep(POLL)


__all__ = ["Hand"]
