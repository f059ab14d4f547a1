"""The registry's server: the lease registry behind a socket, with a loop that removes ended leases."""

import json
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Self

from backstay.clock import SYSTEM, Clock
from backstay.discovery import page
from backstay.discovery.credentials import Credentials, check_exposure
from backstay.discovery.leases import LeaseRegistry, LeaseStatistics
from backstay.discovery.rest import EurekaRest
from backstay.http import HttpReply, HttpRequest, HttpServer, not_found, only_read
from backstay.ids import uuid7
from backstay.metrics import COUNTER, GAUGE, Sample, family
from backstay.tasks import BackgroundTask

if TYPE_CHECKING:
    from backstay.telemetry.access import AccessLog  # its package needs structlog

PORT = 8761
"""Eureka's own."""
EVICTION = 0.5  # seconds between two removals of ended leases
_PAGES = ("", "/eureka", "/health/live", "/health/ready", "/info", "/metrics")

STALL = 1.0  # seconds of a stalled event loop from which leases are prolonged by the stall

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
        access_log: gets a line for each request.
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
        access_log: "AccessLog | None" = None,
        clock: Clock = SYSTEM,
    ) -> None:
        check_exposure(host, credentials, open=open)
        self.leases = leases or LeaseRegistry()
        self._clock = clock
        self._eviction = eviction
        self._offset = clock.now().timestamp() - clock.monotonic()
        self._rest = EurekaRest(self.leases, self.now, life=uuid7().hex, credentials=credentials)
        self._access_log = access_log
        self._server = HttpServer(self.handle if access_log is None else self._handle_and_log, host, port)
        self._eviction_task = BackgroundTask(self._evict, name="discovery-eviction", clock=clock)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self._eviction_task.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._eviction_task.stop()
        await self._server.__aexit__(kind, error, trace)

    @property
    def host(self) -> str:
        """Address it listens on."""
        return self._server.host

    @property
    def port(self) -> int:
        """Port it listens on."""
        return self._server.port

    def now(self) -> float:
        """Return the seconds since the epoch, never going back: the wall clock of the start plus the time since."""
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

    def _handle_and_log(self, request: HttpRequest) -> HttpReply:
        began = self._clock.monotonic()
        reply = self.handle(request)
        if self._access_log is not None:
            seconds = self._clock.monotonic() - began
            self._access_log.write(request.method, request.path, "", reply.status, seconds, "", None)
        return reply

    async def _evict(self) -> None:
        while True:
            began = self.now()
            await self._clock.sleep(self._eviction)
            late = self.now() - began - self._eviction
            if late > STALL:
                log.warning("discovery.event_loop_stalled", extra={"seconds": round(late, 1)})
                self.leases.excuse(late)
            for lease in self.leases.evict(self.now()):
                log.warning(
                    "discovery.lease_expired", extra={"app": lease.registration.app, "id": lease.registration.id}
                )


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
