"""A registry as a process: the lease registry behind a socket, with a loop that ends what is over."""

import asyncio
import json
import logging
import signal
from types import TracebackType
from typing import Self

import uvloop

from backstay.clock import SYSTEM, Clock
from backstay.discovery import page
from backstay.discovery.credentials import Credentials, check_exposure
from backstay.discovery.leases import LeaseRegistry, LeaseStatistics
from backstay.discovery.rest import EurekaRest
from backstay.http import HttpReply, HttpRequest, HttpServer, not_found, only_read
from backstay.ids import uuid7
from backstay.metrics import COUNTER, GAUGE, Sample, family
from backstay.tasks import BackgroundTask

PORT = 8761
EVICTION = 0.5  # seconds between looks for leases that have ended
_PAGES = ("", "/eureka", "/health/live", "/health/ready", "/info", "/metrics")

STALL = 1.0  # seconds that this process must have stood still for leases to be prolonged by them

log = logging.getLogger("backstay.discovery.server")


class RegistryServer:
    """Serves Eureka's REST interface, a page at `/`, health and metrics. Port 0 takes a free one.

    Leaving stops the eviction, then the server; what is registered is forgotten with the object.

    Args:
        host: address to listen on.
        port: port to listen on.
        credentials: who may register; without them everybody may.
        open: accept an address beyond this machine although there are no credentials.
        leases: where registrations are kept.
        eviction: seconds between two removals of ended leases.
        clock: what tells the time.

    Raises:
        ConfigError: no credentials, not `open`, and `host` isn't a loopback address.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT,
        *,
        credentials: Credentials | None = None,
        open: bool = False,  # noqa: A002 - the option's name
        leases: LeaseRegistry | None = None,
        eviction: float = EVICTION,
        clock: Clock = SYSTEM,
    ) -> None:
        check_exposure(host, credentials, open=open)
        self.leases = leases or LeaseRegistry()
        self._clock = clock
        self._eviction = eviction
        self._offset = clock.now().timestamp() - clock.monotonic()
        self._rest = EurekaRest(self.leases, self.now, life=uuid7().hex, credentials=credentials)
        self._server = HttpServer(self.handle, host, port)
        self._eviction_task = BackgroundTask(self._evict, name="discovery-eviction", clock=clock)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self._eviction_task.start()
        log.info("discovery.listening address=%s:%s", self._server.host, self._server.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._eviction_task.stop()
        await self._server.__aexit__(kind, error, trace)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; the whole life of a process."""
        uvloop.run(self.serve())

    async def serve(self) -> None:
        """Serve until the process gets SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with self:
            await stop.wait()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    def now(self) -> float:
        """Seconds since the epoch that never go back: the wall clock of the start plus what has passed since."""
        return self._offset + self._clock.monotonic()

    def statistics(self) -> LeaseStatistics:
        """Return a snapshot of the registry's counters."""
        return self.leases.statistics()

    def handle(self, request: HttpRequest) -> HttpReply:
        """Answer one request."""
        reply = self._rest.handle(request)
        if reply is not None:
            return reply
        if request.path.rstrip("/") in _PAGES and (refusal := only_read(request)) is not None:
            return refusal
        match request.path.rstrip("/"):
            case "" | "/eureka":
                if (refusal := self._rest.refusal(request)) is not None:
                    return refusal
                return HttpReply(200, page.render(self.leases, self.now()), page.HEADERS, page.CONTENT_TYPE)
            case "/health/live" | "/health/ready":
                return _json({"status": "UP"})
            case "/info":
                seen = self.leases.statistics()
                return _json({"service": "discovery", "instances": seen.leases, "applications": seen.apps})
            case "/metrics":
                return HttpReply(200, _metrics(self.statistics(), self._rest), content_type="text/plain; version=0.0.4")
        return not_found(request)

    async def _evict(self) -> None:
        while True:
            began = self.now()
            await self._clock.sleep(self._eviction)
            late = self.now() - began - self._eviction
            if late > STALL:
                log.warning("discovery.stood-still seconds=%.1f", late)
                self.leases.excuse(late)
            for lease in self.leases.evict(self.now()):
                log.warning("discovery.lease-expired app=%s id=%s", lease.registration.app, lease.registration.id)


def _json(content: dict[str, object]) -> HttpReply:
    return HttpReply(200, json.dumps(content).encode(), content_type="application/json")


def _metrics(seen: LeaseStatistics, rest: EurekaRest) -> bytes:
    numbers = [
        ("instances", GAUGE, "Instances that are registered.", seen.leases),
        ("applications", GAUGE, "Applications that have instances.", seen.apps),
        ("registrations_total", COUNTER, "Registrations taken.", seen.registered),
        ("heartbeats_total", COUNTER, "Heartbeats taken.", seen.renewed),
        ("unknown_heartbeats_total", COUNTER, "Heartbeats for instances that are not there.", seen.unknown),
        ("cancellations_total", COUNTER, "Cancellations taken.", seen.cancelled),
        ("expirations_total", COUNTER, "Leases that ran out.", seen.expired),
        ("unauthorized_requests_total", COUNTER, "Requests without a credential that is known.", rest.unauthorized),
        ("forbidden_requests_total", COUNTER, "Requests whose credential is for another application.", rest.forbidden),
    ]
    lines = [
        line
        for name, kind, text, value in numbers
        for line in family(f"discovery_{name}", kind, text, [Sample({}, value)])
    ]
    return "\n".join([*lines, ""]).encode()
