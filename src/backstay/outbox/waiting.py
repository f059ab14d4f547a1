"""Topics and keys that must not be published now, and why. Pure; times are passed in.

A topic whose publish failed for the moment waits, longer each time, and is probed with one row: it may be missing, or
forbidden to us. A record that the broker refused for good may have been innocent, because brokers refuse whole
batches: its key is suspected, and its topic goes record by record until every suspect has been offered alone. Only who
is refused alone is poison; its key is parked with all that follows. A lost producer says nothing about anybody: the
whole relay pauses.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from backstay.messaging import PublishError, Record

TOPIC_WAIT = (0.05, 5.0)  # seconds until a topic whose publish failed is tried again: at first, at most
PRODUCER_WAIT = (0.02, 2.0)  # the same for everything, after the producer was lost
MISSES = 200  # reads of its shard that don't show a suspect before it is forgotten
MAX_SUSPECTS = 1000  # more suspected keys than that, and the topic waits as a whole

Key = tuple[str, bytes | None]


class Pending(msgspec.Struct, frozen=True, gc=False):
    """One row on its way; `size` is roughly its bytes in memory, `time` when its transaction began."""

    shard: int
    seq: int
    record: Record
    size: int
    time: datetime | None = None

    @property
    def key(self) -> Key:
        """The unit of order: topic and key."""
        return self.record.topic, self.record.key


@dataclass(frozen=True, slots=True)
class Waiting:
    """Topics and keys that wait, each with its failures and its reason."""

    until: float
    failures: int
    reason: str

    @classmethod
    def after(cls, before: "Waiting | None", wait: tuple[float, float], reason: str, now: float) -> "Waiting":
        """One more failure: twice as long as before."""
        failures = before.failures + 1 if before else 1
        return cls(now + min(wait[0] * 2 ** min(failures - 1, 10), wait[1]), failures, reason)


@dataclass(slots=True)
class Suspect:
    """A key one of whose records was refused together with others."""

    shard: int
    reason: str
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that was refused alone."""

    row: Pending
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows for one publish; topics of which one row is a probe; topics of which one row is offered alone."""

    rows: Sequence[Pending]
    probes: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()


class Waits:
    """Topics, keys and the producer, as far as they wait."""

    def __init__(self) -> None:
        self.topics: dict[str, Waiting] = {}
        self.suspects: dict[Key, Suspect] = {}
        self.poison: dict[Key, Poison] = {}
        self.producer: Waiting | None = None
        self._probing: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether rows must be chosen with care."""
        return bool(self.topics or self.suspects or self.poison)

    def everything(self, now: float) -> bool:
        """Return whether nothing may be read at all."""
        return self.producer is not None and now < self.producer.until

    def topics_now(self, now: float, in_flight: Iterable[frozenset[str]]) -> list[str]:
        """Topics that must not be read: it isn't time, a probe is on its way, or a suspect needs the topic empty."""
        careful = {topic for topic, _ in self.suspects}
        busy = {topic for flight in in_flight for topic in flight & careful}
        waiting = {topic for topic, one in self.topics.items() if now < one.until or topic in self._probing}
        return sorted(waiting | busy)

    def first_shard(self) -> int | None:
        """Return the shard of a suspect, to be read first."""
        return next((one.shard for one in self.suspects.values()), None)

    def next_retry(self, now: float) -> float | None:
        """Seconds until something that waits may be tried again."""
        waiting = [*self.topics.values(), *([self.producer] if self.producer else [])]
        return min((one.until - now for one in waiting if one.until > now), default=None)

    def choose(self, rows: Sequence[Pending], in_flight: Iterable[frozenset[str]]) -> Choice:
        """Those of the rows that may go out together."""
        alone = self._alone(rows, frozenset[str]().union(*in_flight))
        careful = {topic for topic, _ in self.suspects}
        chosen: list[Pending] = []
        probes: set[str] = set()
        for row in rows:
            topic = row.record.topic
            if row.key in self.poison or (topic in careful and alone.get(topic) is not row):
                continue
            if topic in self.topics:
                if topic in probes or topic in self._probing:
                    continue
                probes.add(topic)
            chosen.append(row)
        return Choice(chosen, frozenset(probes), frozenset(alone))

    def sent(self, choice: Choice) -> None:
        """It is on its way."""
        self._probing |= choice.probes

    def ended(self, choice: Choice) -> None:
        """It has come back, in whatever way."""
        self._probing -= choice.probes

    def acknowledged(self, row: Pending) -> None:
        """The broker took it."""
        self.producer = None
        self.topics.pop(row.record.topic, None)
        self.suspects.pop(row.key, None)

    def refused(self, row: Pending, error: PublishError, now: float, *, alone: bool) -> Poison | None:
        """Return the broker will not take it; whether that is the last word depends on whether it was alone."""
        self.producer = None
        if alone:
            self.suspects.pop(row.key, None)
            self.poison[row.key] = Poison(row, str(error))
            return self.poison[row.key]
        if row.key not in self.suspects and len(self.suspects) >= MAX_SUSPECTS:
            self.failed(row, error, now)
        else:
            self.suspects.setdefault(row.key, Suspect(row.shard, str(error)))
        return None

    def failed(self, row: Pending, error: PublishError, now: float) -> None:
        """The broker could not take it for the moment, or it was held back behind one that is suspected."""
        if error.kind == "producer":
            if not self.everything(now):
                self.producer = Waiting.after(self.producer, PRODUCER_WAIT, str(error), now)
        elif row.key not in self.suspects and row.key not in self.poison:
            topic = row.record.topic
            before = self.topics.get(topic)
            if before is None or now >= before.until:
                self.topics[topic] = Waiting.after(before, TOPIC_WAIT, str(error), now)

    def parked(self, key: Key) -> None:
        """The key is parked: its rows are somewhere else now."""
        self.poison.pop(key, None)
        self.suspects.pop(key, None)

    def problems(self) -> Iterator[str]:
        """Why events may not flow."""
        if self.producer is not None and self.producer.failures > 1:
            yield f"the producer was lost {self.producer.failures} times: {self.producer.reason}"
        for topic, waiting in self.topics.items():
            yield f"topic {topic!r} can't be published to ({waiting.failures} failures): {waiting.reason}"
        for (topic, key), poison in self.poison.items():
            shown = (key or b"").decode(errors="replace")
            yield f"key {shown!r} of topic {topic!r} is about to be parked: {poison.reason}"

    def _alone(self, rows: Sequence[Pending], in_flight: frozenset[str]) -> Mapping[str, Pending]:
        """Topic → the one row it may send: a suspect's if there is one in sight."""
        chosen: dict[str, Pending] = {}
        seen: set[Key] = set()
        careful = {topic for topic, _ in self.suspects} - in_flight
        for row in rows:
            seen.add(row.key)
            topic = row.record.topic
            first = chosen.get(topic)
            if topic in careful and (first is None or (row.key in self.suspects and first.key not in self.suspects)):
                chosen[topic] = row
        self._forget({row.shard for row in rows}, seen)
        return chosen

    def _forget(self, shards: set[int], seen: set[Key]) -> None:
        """A suspect whose record isn't found any more is none."""
        for key, suspect in list(self.suspects.items()):
            if key in seen:
                suspect.misses = 0
            elif suspect.shard in shards:
                suspect.misses += 1
                if suspect.misses >= MISSES:
                    del self.suspects[key]
