"""The registry as one service sees it: it announces itself, keeps its lease alive, and keeps a list of the others.

Entering never waits for the registry and never fails because of it; two loops of their own try until it is there.
Whatever happens to the registry, `choose` answers from the last list.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

from backstay.clock import SYSTEM, Clock, pause
from backstay.discovery.balancer import Balancer, Table
from backstay.discovery.errors import DiscoveryError, NoInstance, RegistryFault
from backstay.discovery.instance import DOWN, EJECTION, OUT_OF_SERVICE, STATUSES, UP, Instance
from backstay.discovery.listing import read_list
from backstay.discovery.registration import Registration
from backstay.discovery.rest import REGISTRY_HEADER
from backstay.discovery.transport import RegistryAddress, Transport
from backstay.discovery.view import View
from backstay.http import HttpClient, HttpResponse
from backstay.metrics import Count
from backstay.tasks import BackgroundTask, Backoff

HEARTBEAT = 30.0  # seconds
LEASE = 90.0  # seconds
FETCH = 30.0  # seconds
TIMEOUT = 2.0  # seconds for one request
FAREWELL = 2.0  # seconds for leaving in all
LEAST_GAP = 0.25  # seconds between two fetches, however much we want another
RETRY = Backoff(first=0.1, cap=2.0)
"""Waits after failed requests; never longer than the interval of what failed."""

log = logging.getLogger("backstay.discovery.client")


@dataclass(frozen=True, slots=True)
class EurekaClientStatistics:
    """State and counts since the start."""

    registered: bool
    status: str | None
    """What we say of ourselves; None if we only look."""
    fetch_age: float | None
    """Seconds since the last answer; None before the first."""
    up: Mapping[str, int]
    """Instances that are up, by application."""
    ejected: int
    heartbeats: Count
    registrations: Count
    failures: Count
    """Requests to the registry that failed."""


class EurekaClient:
    """`async with EurekaClient("http://localhost:8761/eureka", app="orders", port=8083) as registry: …`

    Without `app` it only looks. Leaving is `leave` plus the end of both loops; it takes at most `FAREWELL` seconds.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        app: str | None = None,
        host: str | None = None,
        port: int = 0,
        instance_id: str | None = None,
        heartbeat: float = HEARTBEAT,
        lease: float = LEASE,
        fetch: float = FETCH,
        timeout: float = TIMEOUT,
        metadata: Mapping[str, str] | None = None,
        http: HttpClient | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        addresses = [RegistryAddress.parse(url) for url in ([urls] if isinstance(urls, str) else urls)]
        self._http = http or HttpClient()
        self._owns_http = http is None
        self._transport = Transport(addresses, self._http, timeout=timeout)
        self._balancer = Balancer(clock)
        self._view = View(lease)
        self._heartbeat, self._lease, self._fetch, self._clock = heartbeat, lease, fetch, clock
        self._ours: Registration | None = None
        self._registered = False
        self._asked = False
        self._fetching = BackgroundTask(self._keep_fetching, name="discovery-fetch", clock=clock)
        self._registering = BackgroundTask(self._keep_registered, name="discovery-heartbeat", clock=clock)
        self._wanted = asyncio.Event()
        self._body = b""
        self._apps: Mapping[str, Sequence[Instance]] = {}
        self._fetched_at: float | None = None
        self._heartbeats = self._registrations = self._failures = 0
        self._begin: Callable[[], None] | None = None
        if app is not None:
            self._begin = partial(self.announce, app, port, host=host, instance_id=instance_id, metadata=metadata)

    async def __aenter__(self) -> Self:
        self._fetching.start()
        if self._begin is not None:
            self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()
        await self._fetching.stop()
        if self._owns_http:
            await self._http.__aexit__(None, None, None)

    def announce(
        self,
        app: str,
        port: int,
        *,
        host: str | None = None,
        instance_id: str | None = None,
        status: str = UP,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Begin to register and to send heartbeats, now that the port is known. Returns at once."""
        if self._ours is not None:
            raise DiscoveryError(f"{self._ours.id} has been announced already")
        host = host or _own_address(self._transport.address)
        self._ours = self._registration(app, port, host, instance_id or f"{host}:{app}:{port}", status, metadata or {})
        self._registering.start()

    async def leave(self) -> None:
        """End the heartbeats, set status DOWN, cancel the lease; never raises, does nothing the second time."""
        await self._registering.stop()
        ours, self._ours = self._ours, None
        self._registered = False
        if ours is None or not self._asked:
            return
        try:
            async with asyncio.timeout(FAREWELL):
                await self._transport.register(replace(ours, status=DOWN, dirty_at=self._millis()))
                await self._transport.cancel(ours)
        except (RegistryFault, TimeoutError) as error:
            log.warning("discovery.left-without-notice error=%s", error)

    def choose(self, app: str) -> Instance:
        """Return the next instance that is up, in turn; raises `NoInstance` (and then fetches again soon)."""
        try:
            return self._balancer.choose(app)
        except NoInstance:
            self._wanted.set()
            raise

    def instances(self, app: str) -> list[Instance]:
        """All known instances, in any state."""
        return self._balancer.instances(app)

    def eject(self, instance: Instance, seconds: float = EJECTION) -> None:
        """Leave the instance out of `choose` for a while: it just refused a connection."""
        self._balancer.eject(instance, seconds)

    async def set_status(self, status: str) -> None:
        """Send our status to the registry. OUT_OF_SERVICE holds until another one is set, also over a restart of ours.

        While the registry can't be reached the status is kept and told with the next registration.
        """
        if status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(sorted(STATUSES))}, not {status!r}")
        if self._ours is None or self._ours.status == status:
            return
        before = self._ours.status
        ours = self._ours = replace(self._ours, status=status, dirty_at=max(self._millis(), self._ours.dirty_at + 1))
        try:
            if status == OUT_OF_SERVICE:
                await self._transport.override(ours, status)
            elif before == OUT_OF_SERVICE:
                await self._transport.remove_override(ours, status)
            await self._transport.register(ours)
        except RegistryFault as error:
            self._failed("discovery.status-not-told", error)

    @property
    def healthy(self) -> bool:
        """True if the last fetch succeeded lately: within two fetch intervals and a time-out."""
        return self.last_fetch is not None and self.last_fetch <= 2 * self._fetch + TIMEOUT

    @property
    def last_fetch(self) -> float | None:
        """Seconds since the last answer; None before the first."""
        return None if self._fetched_at is None else self._clock.monotonic() - self._fetched_at

    @property
    def registered(self) -> bool:
        """True if we hold a lease, as far as we know."""
        return self._registered

    def statistics(self) -> EurekaClientStatistics:
        """Return a snapshot of state and counters."""
        return EurekaClientStatistics(
            self._registered,
            None if self._ours is None else self._ours.status,
            self.last_fetch,
            self._balancer.apps,
            self._balancer.ejected,
            self._heartbeats,
            self._registrations,
            self._failures,
        )

    async def _keep_registered(self) -> None:
        failures = 0
        while self._ours is not None:
            try:
                await self._stay_registered(self._ours)
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, the heartbeats must go on
                failures += 1
                self._failed("discovery.heartbeat-failed", error)
            await self._clock.sleep(self._delay(self._heartbeat, failures))

    async def _stay_registered(self, ours: Registration) -> None:
        if self._registered and await self._transport.renew(ours):
            self._heartbeats += 1
            return
        self._asked = True
        await self._transport.register(ours)
        self._registered = True
        self._registrations += 1
        log.info("discovery.registered app=%s id=%s", ours.app, ours.id)

    async def _keep_fetching(self) -> None:
        failures = 0
        while True:
            try:
                await self._fetch_all()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, the list must be fetched again
                failures += 1
                self._failed("discovery.fetch-failed", error)
            self._wanted.clear()
            await self._clock.sleep(min(self._fetch, LEAST_GAP))
            await pause(self._clock, self._delay(self._fetch, failures) - LEAST_GAP, self._wanted)

    async def _fetch_all(self) -> None:
        held_before = self._registered
        response = await self._transport.fetch()
        now = self._clock.monotonic()
        self._balancer.install(await asyncio.to_thread(self._believe, response, now, held_before))
        self._fetched_at = now

    def _believe(self, response: HttpResponse, now: float, held_before: bool) -> Table:
        """Return the instances to choose from after this answer; in a thread, since 20,000 instances take a while."""
        apps = read_list(response.body, response.headers.get("content-encoding"))
        life = response.headers.get(REGISTRY_HEADER)
        return Table.of(self._view.fetched(apps, now, life=life, missing_us=held_before and not self._is_in(apps)))

    def _is_in(self, apps: Mapping[str, Sequence[Instance]]) -> bool:
        ours = self._ours
        return ours is None or any(each.id == ours.id for each in apps.get(ours.app.lower(), ()))

    def _delay(self, interval: float, failures: int) -> float:
        if not failures:
            return interval * random.uniform(0.9, 1.0)  # noqa: S311 - jitter
        return min(RETRY.wait(failures), interval)

    def _failed(self, event: str, error: Exception) -> None:
        self._failures += 1
        log.warning("%s error=%s", event, error)

    def _millis(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    def _registration(
        self, app: str, port: int, host: str, instance_id: str, status: str, metadata: Mapping[str, str]
    ) -> Registration:
        address = f"http://{host}:{port}"
        return Registration(
            app=app.upper(),
            id=instance_id,
            host=host,
            ip=host,
            port=port,
            status=status,
            renewal=max(1, round(self._heartbeat)),
            duration=max(1, round(self._lease)),
            metadata=metadata,
            details={
                "homePageUrl": f"{address}/",
                "statusPageUrl": f"{address}/info",
                "healthCheckUrl": f"{address}/health/ready",
                "vipAddress": app.lower(),
                "secureVipAddress": app.lower(),
            },
            dirty_at=self._millis(),
        )


def _own_address(registry: RegistryAddress) -> str:
    """Return the address of ours that leads to the registry; no packet is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((registry.host, registry.port))
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
