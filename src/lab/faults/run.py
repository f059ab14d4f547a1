"""Inject the faults of a schedule into a running system, and record what was injected and when."""

import asyncio
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from lab.faults.injector import Hand
from lab.faults.schedule import Accident, Kind, Targets
from lab.system.instances import service_of
from lab.system.system import System
from shop import topology

EVERYBODY = "all"


@dataclass(frozen=True, slots=True)
class Struck:
    """An accident that happened, from wall time `began` to `ended`, and what is worth knowing of it."""

    accident: Accident
    began: float
    ended: float
    note: str = ""


def targets(system: System) -> Targets:
    """Return the possible targets of faults in a system."""
    instances = system.instances
    return Targets(
        services=[each.name for each in instances],
        broker=[each.name for each in instances if each.service.kafka],
        database=[each.name for each in instances if each.service.database],
    )


class Storm:
    """Runs a schedule over a system. `struck` is what has happened."""

    def __init__(self, hand: Hand, accidents: Sequence[Accident], tell: Callable[[str], None]) -> None:
        self._hand, self._accidents, self._tell = hand, accidents, tell
        self.struck: list[Struck] = []

    async def run(self) -> None:
        """From the first accident to the end of the last one."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for accident in self._accidents:
                await asyncio.sleep(max(0.0, started + accident.at - time.monotonic()))
                group.create_task(self._befall(accident))

    async def _befall(self, accident: Accident) -> None:
        self._tell(str(accident))
        began = time.time()
        note = await self._do(accident)
        self.struck.append(Struck(accident, began, time.time(), note))

    async def _do(self, accident: Accident) -> str:
        who = None if accident.target == EVERYBODY else [accident.target]
        match accident.kind:
            case Kind.KILL | Kind.KILL_BROKER:
                await self._hand.kill(accident.target)
            case Kind.RESTART_BROKER:
                await self._hand.end(accident.target, signal.SIGTERM)
            case Kind.STOP_POSTGRES:
                await self._hand.end(accident.target, signal.SIGQUIT)
            case Kind.PAUSE:
                async with self._hand.paused(accident.target):
                    await asyncio.sleep(accident.lasts)
            case Kind.CUT_BROKER:
                return f"{self._hand.cut('kafka', who)} connections"
            case Kind.CUT_DATABASE:
                return f"{self._hand.cut('postgres', who)} connections"
            case _:
                with self._door(accident.kind, who):
                    await asyncio.sleep(accident.lasts)
        return ""

    def _door(self, kind: Kind, who: Collection[str] | None) -> AbstractContextManager[None]:
        if kind is Kind.HOLD_BROKER:
            return self._hand.held("kafka", who)
        return self._hand.shut("kafka" if kind is Kind.SHUT_BROKER else "postgres", who)


def hits(accident: Accident, service: str) -> bool:
    """Return whether an accident may keep a service from answering: itself, or its database."""
    mine = accident.target == EVERYBODY or service_of(accident.target) == service
    match accident.kind:
        case Kind.KILL | Kind.PAUSE:
            return service_of(accident.target) == service
        case Kind.CUT_DATABASE | Kind.SHUT_DATABASE:
            return mine and topology.service(service).database
        case Kind.STOP_POSTGRES:
            return topology.service(service).database
        case _:
            return False
