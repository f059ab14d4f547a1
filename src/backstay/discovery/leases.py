"""The registry itself: leases that live as long as they are renewed. Pure; every method takes `now`.

A lease ends exactly `duration` seconds after its last heartbeat. Eureka's renewals count double (an instance that died
stays for two durations); ours don't. There is no self-preservation either: keeping dead instances because many died at
once trades a short list for a wrong one. What it protects from, a registry cut off from everybody, is answered on the
other side: clients keep their last list while they can't reach the registry, and for one lease after it came back
empty.

Statuses follow Eureka: an operator's override outlives heartbeats and registrations until it is removed; a registration
that says DOWN or STARTING is believed; one that says UP or OUT_OF_SERVICE doesn't undo what the lease has.

`now` is in seconds since the epoch and must not go back.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from backstay.discovery.errors import BadInstance, TooManyLeases
from backstay.discovery.instance import OUT_OF_SERVICE, UNKNOWN, UP
from backstay.discovery.limits import MAX_LEASES, MAX_LIST, MAX_METADATA, MAX_REGISTRATION
from backstay.discovery.registration import Registration
from backstay.metrics import Count

OVERRIDE_LIFE = 3600.0  # seconds an override outlives its lease
ADDED = "ADDED"
MODIFIED = "MODIFIED"


@dataclass(slots=True)
class Lease:
    """A registration and its times, in seconds since the epoch."""

    registration: Registration
    registered_at: float
    renewed_at: float
    updated_at: float
    up_since: float = 0.0
    """0 until it was up."""
    action: str = ADDED
    serial: int = 0
    """Number of the change that made it what it is."""
    weight: int = 0
    """No fewer bytes than it takes in the list."""

    @property
    def ends_at(self) -> float:
        """The time of expiry, unless it is renewed."""
        return self.renewed_at + self.registration.duration


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """State and counts since the start."""

    leases: int
    apps: int
    version: int
    registered: Count
    renewed: Count
    cancelled: Count
    expired: Count
    unknown: Count
    """Heartbeats for leases that are not there."""


@dataclass(slots=True)
class _Override:
    status: str
    until: float


class LeaseRegistry:
    """Every lease by application and id.

    Args:
        max_leases: registrations beyond this are refused.
        max_list: bytes of the list of all of them, at most; registrations beyond this are refused, too.
    """

    def __init__(self, *, max_leases: int = MAX_LEASES, max_list: int = MAX_LIST) -> None:
        self._max = max_leases
        self._max_list = max_list
        self._weight = 0
        self._apps: dict[str, dict[str, Lease]] = {}
        self._overrides: dict[tuple[str, str], _Override] = {}
        self._ends: list[tuple[float, str, str]] = []
        self._size = 0
        self._registered = self._renewed = self._cancelled = self._expired = self._unknown = 0
        self.version = 0
        """Grows with every change that a fetch shows; heartbeats don't count."""

    def register(self, registration: Registration, now: float) -> Lease:
        """Return a new lease, or the existing one with new contents; an older copy never replaces a newer one.

        Raises:
            TooManyLeases: there is no room for it.
        """
        existing = self.get(registration.app, registration.id)
        if existing is None and self._size >= self._max:
            raise TooManyLeases(f"{self._max} leases are registered already")
        if existing is not None and existing.registration.dirty_at > registration.dirty_at:
            registration = existing.registration
        weight = self._room_for(registration, existing)
        lease = Lease(self._with_status(registration, existing, now), now, now, now, weight=weight)
        if existing is not None:
            lease.up_since = existing.up_since
        self._registered += 1
        self._store(lease)
        self._changed(lease, ADDED, now)
        return lease

    def renew(self, app: str, instance_id: str, now: float, *, dirty_at: int | None = None) -> bool:
        """Count a heartbeat; False when the client has to register (again)."""
        lease = self.get(app, instance_id)
        if lease is None:
            self._unknown += 1
            return False
        held = self._with_status(lease.registration, lease, now)
        if held.status == UNKNOWN or (dirty_at is not None and dirty_at > held.dirty_at):
            self._unknown += 1
            return False
        lease.renewed_at = now
        self._renewed += 1
        if held.status != lease.registration.status:
            lease.registration = held
            self._changed(lease, MODIFIED, now)
        return True

    def cancel(self, app: str, instance_id: str) -> bool:
        """Remove a lease and its override; False when there is none."""
        self._overrides.pop((app.upper(), instance_id), None)
        if self._remove(app.upper(), instance_id) is None:
            return False
        self._cancelled += 1
        return True

    def override(self, app: str, instance_id: str, status: str, now: float, *, dirty_at: int = 0) -> bool:
        """Set an operator's status in place of the instance's own; False when there is no such lease."""
        lease = self.get(app, instance_id)
        if lease is None:
            return False
        lease.renewed_at = now
        self._overrides[app.upper(), instance_id] = _Override(status, now + OVERRIDE_LIFE)
        held = lease.registration
        if (held.status, held.overridden) != (status, status):
            dirty_at = max(dirty_at, held.dirty_at)
            lease.registration = replace(held, status=status, overridden=status, dirty_at=dirty_at)
            self._changed(lease, MODIFIED, now)
        return True

    def remove_override(self, app: str, instance_id: str, now: float, *, status: str = UNKNOWN) -> bool:
        """Give the instance its own status back: `status`, or unknown until it registers again."""
        lease = self.get(app, instance_id)
        if lease is None:
            return False
        lease.renewed_at = now
        if self._overrides.pop((app.upper(), instance_id), None) is not None:
            lease.registration = replace(lease.registration, status=status, overridden=UNKNOWN)
            self._changed(lease, MODIFIED, now)
        return True

    def add_metadata(self, app: str, instance_id: str, entries: Mapping[str, str], now: float) -> bool:
        """Merge entries into the instance's metadata; False when there is no such lease.

        Raises:
            BadInstance: the merged metadata has too many keys or bytes.
            TooManyLeases: there is no room for it.
        """
        lease = self.get(app, instance_id)
        if lease is None:
            return False
        merged = {**lease.registration.metadata, **entries}
        if len(merged) > MAX_METADATA:
            raise BadInstance(f"metadata would have {len(merged)} keys, more than {MAX_METADATA}")
        size = sum(len(text.encode()) for entry in merged.items() for text in entry)
        if size > MAX_REGISTRATION:
            raise BadInstance(f"metadata would have {size} bytes, more than {MAX_REGISTRATION}")
        changed = replace(lease.registration, metadata=merged)
        weight = self._room_for(changed, lease)
        self._weight += weight - lease.weight
        lease.registration, lease.weight = changed, weight
        self._changed(lease, ADDED, now)
        return True

    def evict(self, now: float) -> list[Lease]:
        """Remove and return every lease that has ended."""
        ended = []
        while self._ends and self._ends[0][0] <= now:
            _, app, instance_id = heapq.heappop(self._ends)
            lease = self.get(app, instance_id)
            if lease is None:
                continue
            if lease.ends_at > now:
                heapq.heappush(self._ends, (lease.ends_at, app, instance_id))
                continue
            self._remove(app, instance_id)
            self._expired += 1
            ended.append(lease)
        self._forget_overrides(now)
        return ended

    def excuse(self, seconds: float) -> None:
        """Extend every lease by the time for which this process was unable to receive heartbeats."""
        for leases in self._apps.values():
            for lease in leases.values():
                lease.renewed_at += seconds

    def get(self, app: str, instance_id: str) -> Lease | None:
        """Return the lease of that application and id."""
        return self._apps.get(app.upper(), {}).get(instance_id)

    def find(self, instance_id: str) -> Lease | None:
        """Return the lease of that id in any application."""
        return next((leases[instance_id] for leases in self._apps.values() if instance_id in leases), None)

    def apps(self) -> Iterator[tuple[str, list[Lease]]]:
        """Every application with its leases, by name and id."""
        for name in sorted(self._apps):
            yield name, self.app(name)

    def app(self, name: str) -> list[Lease]:
        """Return the leases of one application, by id."""
        leases = self._apps.get(name.upper(), {})
        return [leases[instance_id] for instance_id in sorted(leases)]

    def status_counts(self) -> dict[str, int]:
        """Return the number of instances in each status, in alphabetical order."""
        counts: dict[str, int] = {}
        for leases in self._apps.values():
            for lease in leases.values():
                counts[lease.registration.status] = counts.get(lease.registration.status, 0) + 1
        return dict(sorted(counts.items()))

    def statistics(self) -> LeaseStatistics:
        """Return a snapshot of the counters."""
        return LeaseStatistics(
            self._size,
            len(self._apps),
            self.version,
            self._registered,
            self._renewed,
            self._cancelled,
            self._expired,
            self._unknown,
        )

    def _with_status(self, registration: Registration, existing: Lease | None, now: float) -> Registration:
        key = registration.app, registration.id
        if registration.overridden != UNKNOWN and key not in self._overrides:
            self._overrides[key] = _Override(registration.overridden, now + OVERRIDE_LIFE)
        override = self._overrides.get(key)
        if override is not None:
            override.until = now + OVERRIDE_LIFE
        overridden = UNKNOWN if override is None else override.status
        status = _status(registration.status, overridden, existing)
        if (status, overridden) == (registration.status, registration.overridden):
            return registration
        return replace(registration, status=status, overridden=overridden)

    def _room_for(self, registration: Registration, existing: Lease | None) -> int:
        """Return the weight of a registration in place of `existing`; raises `TooManyLeases` beyond the limit."""
        weight = registration.weight()
        if self._weight + weight - (existing.weight if existing is not None else 0) > self._max_list:
            raise TooManyLeases(f"the list of all instances would have more than {self._max_list} bytes")
        return weight

    def _store(self, lease: Lease) -> None:
        app, instance_id = lease.registration.app, lease.registration.id
        leases = self._apps.setdefault(app, {})
        before = leases.get(instance_id)
        self._size += before is None
        self._weight += lease.weight - (before.weight if before is not None else 0)
        leases[instance_id] = lease
        heapq.heappush(self._ends, (lease.ends_at, app, instance_id))
        if len(self._ends) > 4 * self._size + 64:
            self._ends = [(each.ends_at, name, key) for name, all_ in self._apps.items() for key, each in all_.items()]
            heapq.heapify(self._ends)

    def _remove(self, app: str, instance_id: str) -> Lease | None:
        leases = self._apps.get(app, {})
        lease = leases.pop(instance_id, None)
        if lease is not None:
            self._size -= 1
            self._weight -= lease.weight
            self.version += 1
            if not leases:
                del self._apps[app]
        return lease

    def _changed(self, lease: Lease, action: str, now: float) -> None:
        self.version += 1
        lease.serial = self.version
        lease.action = action
        lease.updated_at = now
        if lease.registration.status == UP and not lease.up_since:
            lease.up_since = now

    def _forget_overrides(self, now: float) -> None:
        gone = [key for key, override in self._overrides.items() if override.until <= now and not self.get(*key)]
        for key in gone:
            del self._overrides[key]


def _status(own: str, overridden: str, existing: Lease | None) -> str:
    if own not in (UP, OUT_OF_SERVICE):
        return own
    if overridden != UNKNOWN:
        return overridden
    if existing is not None and existing.registration.status in (UP, OUT_OF_SERVICE):
        return existing.registration.status
    return own
