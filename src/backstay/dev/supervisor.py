"""Children and their lives: started, watched, started again with backoff, stopped in order, none left behind.

While the system starts, a death fails the start. After `settle()` a child that dies is started again, unless it is
vital: then `failure` is set and the owner ends everything.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from backstay.dev.home import Home, Recorded
from backstay.dev.processes import started_at
from backstay.dev.program import Program, kill_session, tail_of

FIRST_DELAY = 0.5  # seconds before a dead child is started again
LAST_DELAY = 30.0  # seconds, doubled up to here
HEALTHY_AFTER = 30.0  # seconds of life after which the delay starts small again
POLL = 0.05  # seconds between two looks whether a child is ready


class Died(RuntimeError):
    """A child ended that should not have; the message carries the end of its log."""


class NotReady(RuntimeError):
    """A child lives but wasn't ready in time."""


@dataclass(slots=True)
class Child:
    """One program and its present process."""

    program: Program
    vital: bool
    process: asyncio.subprocess.Process | None = None
    watcher: asyncio.Task[None] | None = None
    wanted: bool = True
    since: float = 0.0
    delay: float = FIRST_DELAY
    restarts: int = 0

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.returncode is None else None


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """A snapshot of one child: pid is None while it is down; uptime in seconds."""

    name: str
    pid: int | None
    wanted: bool
    restarts: int
    uptime: float


class Supervisor:
    """Owner of all children of one home."""

    def __init__(self, home: Home, tell: Callable[[str], None], *, longest_delay: float = LAST_DELAY) -> None:
        self._home, self._tell, self._longest_delay = home, tell, longest_delay
        self._children: dict[str, Child] = {}
        self._settled = False
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def statistics(self) -> list[ChildStatus]:
        """All children, in the order they were started."""
        now = time.monotonic()
        return [
            ChildStatus(child.name, child.pid, child.wanted, child.restarts, now - child.since if child.pid else 0.0)
            for child in self._children.values()
        ]

    def pids(self) -> list[int]:
        """Return the processes that run now."""
        return [child.pid for child in self._children.values() if child.pid is not None]

    def settle(self) -> None:
        """The system is up: from now on the dead are started again."""
        self._settled = True

    async def add(self, program: Program, *, vital: bool = False) -> None:
        """Start a program and keep it running."""
        child = Child(program, vital)
        self._children[program.name] = child
        await self._launch(child)

    async def ready(self, name: str, check: Callable[[], Awaitable[bool]], *, timeout: float) -> None:
        """Wait until `check` holds; Died if anything died meanwhile, NotReady when the time is over."""
        until = time.monotonic() + timeout
        while not await check():
            if self.failure.done():
                raise self.failure.result()
            if time.monotonic() > until:
                log = self._children[name].program.log
                raise NotReady(f"{name} wasn't ready after {timeout:g} s. The end of {log}:\n{tail_of(log)}")
            await asyncio.sleep(POLL)

    async def stop(self, name: str) -> None:
        """Stop a child and leave it stopped."""
        await self._stop(self._child(name))
        self._record()

    async def start(self, name: str) -> None:
        """Start a stopped child again; no effect on one that runs."""
        child = self._child(name)
        if child.wanted and child.watcher is not None and not child.watcher.done():
            return
        child.wanted, child.delay = True, FIRST_DELAY
        await self._launch(child)

    def pid_of(self, name: str) -> int | None:
        """Return the process of a child, None while it is down; KeyError names the children there are."""
        return self._child(name).pid

    def environment_of(self, name: str) -> dict[str, str]:
        """Return the environment of a child, now or at its next start; KeyError lists the children."""
        return dict(self._child(name).program.env)

    def names(self) -> list[str]:
        """All children, in the order they were started."""
        return list(self._children)

    def pids_by_name(self) -> dict[str, int]:
        """Return the children that run now."""
        return {child.name: child.pid for child in self._children.values() if child.pid is not None}

    def retell(self, name: str, **env: str | None) -> None:
        """Change a child's environment from its next start on; None removes a variable."""
        child = self._child(name)
        told = {**child.program.env, **{key: value for key, value in env.items() if value is not None}}
        for key in (key for key, value in env.items() if value is None):
            told.pop(key, None)
        child.program = replace(child.program, env=told)

    async def lose(self, name: str) -> None:
        """kill -9, and leave it dead until it is started: a machine that doesn't come back."""
        child = self._child(name)
        child.wanted = False
        if child.pid is not None:
            kill_session(child.pid)
        await self._stop(child)
        self._record()

    def kill(self, name: str, signal: int) -> None:
        """Send a signal to a child, as an accident would; what follows is what follows an accident."""
        child = self._child(name)
        if child.process is not None and child.pid is not None:
            child.process.send_signal(signal)

    async def close(self, groups: Iterable[Iterable[str]]) -> None:
        """Stop group after group, then the remaining children, the latest started first; idempotent."""
        for child in self._children.values():
            child.wanted = False
        named = [[self._children[name] for name in group if name in self._children] for group in groups]
        rest = [child for child in reversed(self._children.values()) if not any(child in group for group in named)]
        for group in [*named, *([child] for child in rest)]:
            await asyncio.gather(*map(self._stop, group))
        self._record()

    def kill_all(self) -> None:
        """End every child at once, without a word."""
        for child in self._children.values():
            child.wanted = False
            if child.pid is not None:
                kill_session(child.pid)

    def _child(self, name: str) -> Child:
        try:
            return self._children[name]
        except KeyError:
            raise KeyError(f"there is no {name!r} here; there are: {', '.join(self._children)}") from None

    async def _launch(self, child: Child) -> None:
        program = child.program
        program.log.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab") as log:
            child.process = await asyncio.create_subprocess_exec(
                *program.command(), stdout=log, stderr=log, **program.options()
            )
        child.since = time.monotonic()
        self._record()
        if child.watcher is None or child.watcher.done():
            child.watcher = asyncio.create_task(self._watch(child), name=f"watch {child.name}")

    async def _watch(self, child: Child) -> None:
        while child.process is not None:
            code = await child.process.wait()
            self._record()
            if not child.wanted:
                return
            if child.vital or not self._settled:
                self._fail(child, code)
                return
            await self._revive(child, code)

    async def _revive(self, child: Child, code: int) -> None:
        if time.monotonic() - child.since > HEALTHY_AFTER:
            child.delay = FIRST_DELAY
        self._tell(f"{child.name} ended ({_how(code)}); starting it again in {child.delay:g} s")
        await asyncio.sleep(child.delay)
        child.delay = min(child.delay * 2, self._longest_delay)
        if child.wanted:
            child.restarts += 1
            await self._launch(child)

    def _fail(self, child: Child, code: int) -> None:
        if not self.failure.done():
            log = child.program.log
            self.failure.set_result(Died(f"{child.name} ended ({_how(code)}). The end of {log}:\n{tail_of(log)}"))

    async def _stop(self, child: Child) -> None:
        child.wanted = False
        process = child.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(child.program.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), child.program.patience)
            except TimeoutError:
                kill_session(process.pid)
                await process.wait()
        if child.watcher is not None and not child.watcher.done():
            child.watcher.cancel()
            await asyncio.gather(child.watcher, return_exceptions=True)

    def _record(self) -> None:
        alive = [(child.name, child.pid) for child in self._children.values() if child.pid is not None]
        self._home.record([Recorded(name, pid, started_at(pid)) for name, pid in alive])


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
