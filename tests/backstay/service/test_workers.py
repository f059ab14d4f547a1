"""What one of several workers does for all: one at a time, and another one when it ends."""

import os
from pathlib import Path

import pytest

from backstay.errors import ConfigError
from backstay.runtime.composition import Composition
from backstay.service.workers import OncePerHost, WorkerLock
from backstay.testing import FakeClock, eventually


class Work:
    """Parts that run once; each `start` may be told to fail."""

    def __init__(self) -> None:
        self.running = 0
        self.starts = 0
        self.fails = False

    async def start(self, parts: Composition) -> None:
        self.starts += 1
        self.running += 1
        parts.on_stop("work", self.stop)
        if self.fails:
            raise ConnectionError("no database")

    async def stop(self) -> None:
        self.running -= 1


def locks(folder: Path) -> tuple[WorkerLock, WorkerLock]:
    return WorkerLock("things-8080", folder), WorkerLock("things-8080", folder)


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """Another one gets it when the first has freed it; a lock of another name is another lock."""
    first, second = locks(tmp_path / "locks")

    assert (first.acquire(), second.acquire(), first.acquire()) == (True, False, True)
    assert WorkerLock("things-8081", tmp_path / "locks").acquire()
    first.release()
    first.release()
    assert second.acquire()
    second.release()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """It is named, with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="TMPDIR"):
        WorkerLock("things", tmp_path / "file").acquire()


def test_the_usual_folder_is_this_users_own() -> None:
    """Two users of one machine don't meet in it."""
    assert WorkerLock("things").path.parent.name == f"backstay-{os.getuid()}"


async def test_the_work_goes_over_to_a_standby(tmp_path: Path) -> None:
    """The first worker works, the second waits for its end; never do both."""
    first, second = locks(tmp_path)
    clock, work = FakeClock(), Work()
    async with OncePerHost(second, work.start, clock=clock) as standby:
        assert standby.is_primary
    assert work.running == 0

    async with OncePerHost(second, work.start, clock=clock) as waiting:
        pass
    async with OncePerHost(first, work.start, clock=clock) as primary:
        async with OncePerHost(second, work.start, clock=clock) as waiting:
            await eventually(lambda: clock.sleepers == 1)
            assert (primary.is_primary, waiting.is_primary, work.running) == (True, False, 1)
            await primary.__aexit__(None, None, None)
            assert work.running == 0
            clock.advance(1.0)
            await eventually(lambda: waiting.is_primary)
            assert work.running == 1
        assert work.running == 0


async def test_a_start_that_fails(tmp_path: Path) -> None:
    """What has started is stopped, the lock is free, and the server gets the error."""
    first, second = locks(tmp_path)
    work = Work()
    work.fails = True
    with pytest.raises(ConnectionError):
        async with OncePerHost(first, work.start):
            pass

    assert work.running == 0
    assert second.acquire()
    second.release()
