"""A registry: named policies, made on first use from the options of their name, else of `default`.

It may be empty (then every policy has its defaults), or read from the `resilience4j.*` keys of a YAML file. What is in
it is seen by metrics, health and actuator.
"""

import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.resilience import events, spring_config
from backstay.resilience.admission import Admission
from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import BreakerArguments, CircuitBreaker
from backstay.resilience.config import Seconds, check, in_seconds, whole, within
from backstay.resilience.events import Event, State
from backstay.resilience.pipeline import Layer, Pipeline
from backstay.resilience.rate_limiter import RateLimiter
from backstay.resilience.retry import Retry
from backstay.resilience.spring_config import DEFAULT, Errors, Functions
from backstay.resilience.spring_values import Options
from backstay.resilience.thread_pool import ThreadPoolBulkhead
from backstay.resilience.time_limiter import TimeLimiter

L = TypeVar("L", bound=Layer)
E = TypeVar("E", bound=Event)

KINDS: dict[str, type[Layer]] = {
    "retry": Retry,
    "circuitbreaker": CircuitBreaker,
    "ratelimiter": RateLimiter,
    "bulkhead": Bulkhead,
    "timelimiter": TimeLimiter,
    "threadpoolbulkhead": ThreadPoolBulkhead,
}
"""In the order of a pipeline, outermost first."""
CLOCKED = ("circuitbreaker", "retry", "ratelimiter", "timelimiter")
SHARED = ("circuitbreaker", "ratelimiter", "bulkhead")
"""Kinds that take `threads`: the others need no lock, or have one always."""
RATE_LIMIT = {"limit": 50, "period": 500e-9, "max_wait": 5.0}
"""Resilience4j's default, odd as it is; ours has none."""
IDLE = 600.0  # seconds
IDLE_FACTOR = 10  # after so many idle times a keyed breaker is forgotten with what it has counted
MAX_KEYS = 10_000  # breakers of one `Keyed`


@dataclass(frozen=True, slots=True)
class EntryAdded(Event):
    """A policy came into the registry."""

    policy: Layer


@dataclass(frozen=True, slots=True)
class EntryRemoved(Event):
    """A policy left the registry."""

    policy: Layer


@dataclass(frozen=True, slots=True)
class EntryReplaced(Event):
    """A policy took the place of another of its name."""

    old: Layer
    policy: Layer


class Registry:
    """Policies by kind and name. Asking for one twice gives the same, whatever options come with the second question.

    options: by kind (`circuitbreaker`, `retry`, …) and name, what their constructors take; `default` is for all others.
    tags: shown in metrics on all of its policies; those of an instance win.
    threads: all of its policies are used from several threads; `threads=True` makes one so that is asked for.
    """

    def __init__(
        self,
        options: Mapping[str, Mapping[str, Options]] | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        threads: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        unknown = sorted(set(options or {}) - set(KINDS))
        if unknown:
            raise ConfigError([f"registry: unknown kind {kind!r}; there are: {', '.join(KINDS)}" for kind in unknown])
        self._options = {kind: dict((options or {}).get(kind, {})) for kind in KINDS}
        self._tags = dict(tags or {})
        self._threads = threads
        self._lock = threading.RLock()
        self._clock = clock
        self._entries: dict[tuple[str, str], Layer] = {}
        self._keyed: list[Keyed] = []
        self._events = events.Publisher()

    @classmethod
    def from_yaml(
        cls,
        file: str | Path,
        *,
        environ: Mapping[str, str] | None = None,
        errors: Errors | None = None,
        functions: Functions | None = None,
        only: Collection[str] | None = None,
        profiles: Collection[str] | None = None,
        tags: Mapping[str, str] | None = None,
        threads: bool = False,
        clock: Clock = SYSTEM,
    ) -> "Registry":
        """Return a registry with the instances of a file (or only these of them), each created and so validated.

        The file is YAML, or properties if its name ends so. profiles: those active, in place of those that
        `spring.profiles.active` names. Raises ConfigError with every mistake.
        """
        found = spring_config.read_file(
            file, environ=environ, errors=errors, functions=functions, only=only, profiles=profiles
        )
        registry = cls(found, tags=tags, threads=threads, clock=clock)
        for kind, names in found.items():
            for name in names:
                if name != DEFAULT:
                    registry.get(kind, name)
        return registry

    def get(self, kind: str, name: str, **options: Any) -> Layer:
        """Return the policy of a kind and name; create it with these options over the configured ones if missing.

        Of several threads that ask at once each gets the same. `threads=True` has an effect on one that is there, too.
        """
        with self._lock:
            entry = self._entries.get((kind, name))
            added = entry is None
            if entry is None:
                entry = self._entries[kind, name] = self._make(kind, name, options)
        if added:
            self._events.emit(EntryAdded, name, policy=entry)
        elif options.get("threads") and isinstance(entry, Admission):
            entry.make_thread_safe()
        return entry

    def circuit_breaker(self, name: str, **options: Unpack[BreakerArguments]) -> CircuitBreaker:
        """Return the circuit breaker of that name."""
        return cast(CircuitBreaker, self.get("circuitbreaker", name, **options))

    def retry(self, name: str, **options: Any) -> Retry:
        """Return the retry of that name."""
        return cast(Retry, self.get("retry", name, **options))

    def rate_limiter(self, name: str, **options: Any) -> RateLimiter:
        """Return the rate limiter of that name."""
        return cast(RateLimiter, self.get("ratelimiter", name, **options))

    def bulkhead(self, name: str, **options: Any) -> Bulkhead:
        """Return the bulkhead of that name."""
        return cast(Bulkhead, self.get("bulkhead", name, **options))

    def thread_pool(self, name: str, **options: Any) -> ThreadPoolBulkhead:
        """Return the thread pool bulkhead of that name."""
        return cast(ThreadPoolBulkhead, self.get("threadpoolbulkhead", name, **options))

    def time_limiter(self, name: str, **options: Any) -> TimeLimiter:
        """Return the time limiter of that name."""
        return cast(TimeLimiter, self.get("timelimiter", name, **options))

    def configured(self, name: str, *, by_default: bool = False) -> list[str]:
        """Return the kinds of which this name has a configuration; `by_default`: also those with one for all names."""
        return [kind for kind, names in self._options.items() if name in names or (by_default and names.get(DEFAULT))]

    def pipeline(self, name: str) -> Pipeline:
        """All policies that are configured for this name, in the order that serves a remote call."""
        kinds = [kind for kind in KINDS if name in self._options[kind] or (kind, name) in self._entries]
        if not kinds:
            known = sorted({each for names in self._options.values() for each in names} - {DEFAULT})
            raise ConfigError(
                [f"registry: nothing is configured for {name!r}; there are: {', '.join(known) or 'none'}"]
            )
        return Pipeline(*(self.get(kind, name) for kind in kinds), name=name)

    def add(self, policy: L) -> L:
        """Take in a policy that was made elsewhere; one of its kind and name is replaced."""
        key = _kind(policy), policy.name
        with self._lock:
            old = self._entries.get(key)
            self._entries[key] = policy
        if old is None:
            self._events.emit(EntryAdded, policy.name, policy=policy)
        elif old is not policy:
            self._events.emit(EntryReplaced, policy.name, old=old, policy=policy)
        return policy

    def remove(self, policy: Layer) -> None:
        """Forget a policy; its users keep it."""
        with self._lock:
            removed = self._entries.pop((_kind(policy), policy.name), None)
        if removed is not None:
            self._events.emit(EntryRemoved, policy.name, policy=policy)

    def tags(self, policy: Layer) -> dict[str, str]:
        """Return the tags of a policy: the registry's, and its own."""
        own = self._options[_kind(policy)].get(policy.name, {}).get("tags", {})
        return {**self._tags, **{str(key): str(value) for key, value in own.items()}}

    def keyed(self, name: str, *, idle: Seconds = IDLE, most: int = MAX_KEYS, **options: Any) -> "Keyed":
        """Circuit breakers by key (host, tenant), with the options of `name`: at most `most`, forgotten when idle."""
        keyed = Keyed(self, name, in_seconds(idle), most, options, self._clock)
        self._keyed.append(keyed)
        return keyed

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for entries that come, go or are replaced; returns a function that stops it."""
        return self._events.on(event, listener)

    def __iter__(self) -> Iterator[Layer]:
        return iter(tuple(self._entries.values()))

    def breakers(self) -> list[CircuitBreaker]:
        """All circuit breakers, by name."""
        found = [each for each in self if isinstance(each, CircuitBreaker)]
        return sorted(found, key=lambda breaker: breaker.name)

    def _make(self, kind: str, name: str, options: Options) -> Layer:
        configured = self._options[kind]
        known = configured.get(name, configured.get(DEFAULT, {}))
        arguments = {**known, **options, "name": name}
        arguments.pop("tags", None)
        if kind == "ratelimiter":
            arguments = {**RATE_LIMIT, **arguments}
        if kind in SHARED and self._threads:
            arguments.setdefault("threads", True)
        if kind in CLOCKED:
            arguments.setdefault("clock", self._clock)
        return KINDS[kind](**arguments)


class Keyed:
    """Circuit breakers by key. One that was idle for `idle` seconds is forgotten, unless it holds failures or is open.

    After ten times as long it is forgotten whatever it has counted: only a state set by hand stays. Beyond `most`
    breakers the one idle longest goes first. Ask for the breaker at each call:
    `await by_host[url.host].call(fetch, url)`.
    """

    def __init__(self, registry: Registry, name: str, idle: float, most: int, options: Options, clock: Clock) -> None:
        check(
            f"keyed circuit breakers '{name}'",
            (within(idle, 0), f"idle: {idle!r} is not greater than 0 seconds"),
            (whole(most, 1), f"most: {most!r} is not a whole number of at least 1"),
        )
        self.name = name
        self._registry = registry
        self._idle = idle
        self._most = most
        self._options = options
        self._now = clock.monotonic
        self._used: dict[Hashable, tuple[float, CircuitBreaker]] = {}  # least recently used first
        self._next_look = self._now() + idle
        self._lock = threading.RLock()

    def __getitem__(self, key: Hashable) -> CircuitBreaker:
        now = self._now()
        with self._lock:
            gone = self._evict(now) if now >= self._next_look else []
            used = self._used.pop(key, None)
            if used is None and len(self._used) >= self._most:
                gone.append(self._used.pop(next(iter(self._used)))[1])
            breaker = self._make(key) if used is None else used[1]
            self._used[key] = now, breaker
        for each in gone:
            if each is not breaker:
                self._registry.remove(each)
        return breaker

    def __len__(self) -> int:
        return len(self._used)

    def _make(self, key: Hashable) -> CircuitBreaker:
        known = self._registry._options["circuitbreaker"].get(self.name, {})
        return self._registry.circuit_breaker(f"{self.name}:{key}", **{**known, **self._options})

    def _evict(self, now: float) -> list[CircuitBreaker]:
        """Take out those that are forgotten."""
        gone = []
        for key, (used, breaker) in tuple(self._used.items()):
            if used > now - self._idle:
                break
            if not _remembers(breaker, counts=used > now - IDLE_FACTOR * self._idle):
                del self._used[key]
                gone.append(breaker)
        self._next_look = now + self._idle
        return gone


def _remembers(breaker: CircuitBreaker, *, counts: bool) -> bool:
    """Return whether dropping it would lose a manual state or, where that `counts`, a failure or an open state."""
    now = breaker.statistics()
    if now.state in (State.DISABLED, State.FORCED_OPEN, State.METRICS_ONLY):
        return True
    return counts and (now.state is not State.CLOSED or bool(now.failed_calls or now.slow_calls))


def _kind(policy: Layer) -> str:
    for kind, of in KINDS.items():
        if isinstance(policy, of):
            return kind
    raise ConfigError([f"registry: {policy!r} is none of {', '.join(KINDS)}"])


__all__ = ["EntryAdded", "EntryRemoved", "EntryReplaced", "Keyed", "Registry"]
