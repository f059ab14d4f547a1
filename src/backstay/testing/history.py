"""A checker of histories: what was committed, what lay in the log, what had its effect; and whether that adds up.

Processes under test record what they do as facts, one line each, in a file that survives their death (`Recorder`).
Afterwards a `Checker` is told all facts, the log, and the effects in their order, and proves or refutes:

    I1  every committed event is in the log, and has had its effect
    I2  no other event is
    I3  the first occurrences of an aggregate's events are in the order of its versions; so are its effects
    I4  every effect happened once
    and the fence: nothing was deleted under an epoch that somebody else had replaced before

Whether a transaction whose writer died was committed only the database can say: ask it about `Checker.unknown()` and
`settle` them. Moments are nanoseconds of the machine's monotonic clock, which all its processes share.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

import msgspec

EXAMPLES = 5  # violations of a kind that are spelled out


class Written(NamedTuple):
    """An event as its writer made it; `version` counts the events of its aggregate from 1."""

    aggregate: str
    version: int
    id: str


class Tried(msgspec.Struct, frozen=True, array_like=True, tag="tried"):
    """A transaction is about to write these; recorded before its first statement."""

    transaction: str
    events: tuple[Written, ...]


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """The end of a transaction, as far as its writer knows it; one that never ended is unknown, too."""

    transaction: str
    outcome: Literal["committed", "rolled-back", "unknown"]


class Saw(msgspec.Struct, frozen=True, array_like=True, tag="saw"):
    """A consumer's handler was called for these, whether or not its transaction was committed afterwards."""

    ids: tuple[str, ...]


class Acquired(msgspec.Struct, frozen=True, array_like=True, tag="acquired"):
    """A relay has got shards, each with its new epoch; `moment`: when the answer was there."""

    epochs: dict[int, int]
    moment: int


class Deleted(msgspec.Struct, frozen=True, array_like=True, tag="deleted"):
    """A relay has deleted rows of shards it believed to hold; `moment`: before the statement was sent."""

    epochs: dict[int, int]
    moment: int


Fact = Tried | Ended | Saw | Acquired | Deleted
_decode = msgspec.json.Decoder(Fact).decode


class Recorder:
    """Appends facts to a file, each by one write to the operating system: a SIGKILL loses none that was recorded."""

    def __init__(self, path: Path) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def record(self, fact: Fact) -> None:
        """Keep it."""
        os.write(self._file, self._encode(fact) + b"\n")


def read(path: Path) -> Iterator[Fact]:
    """Yield the facts of a file; half a line at its end was never recorded."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _decode(line)


class Kind(Enum):
    """Kinds of findings."""

    LOST = "committed, and not in the log (I1)"
    IDLE = "committed, and without its effect (I1)"
    INVENTED = "in the log, and never committed (I2)"
    UNFOUNDED = "an effect of what was never committed (I2)"
    DISORDER = "in the log for the first time behind a later version (I3)"
    OVERTAKEN = "its effect came after that of a later version (I3)"
    TWICE = "its effect happened more than once (I4)"
    UNFENCED = "deleted under an epoch that was replaced before (fence)"
    FORGOTTEN = "reported as committed, and unknown to the database (the database's fault, not ours)"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conclusion from the histories.

    transactions: by outcome; events: committed ones; log: records in the log, `repeats` of them not the first of their
    event; effects: in all; saw: calls of handlers, also those that were rolled back; violations: how many of each
    kind; examples: a few of each, in words.
    """

    transactions: Mapping[str, int]
    events: int
    log: int
    repeats: int
    effects: int
    saw: int
    violations: Mapping[Kind, int]
    examples: Mapping[Kind, Sequence[str]]

    @property
    def holds(self) -> bool:
        """True if nothing is wrong."""
        return not self.violations

    def __str__(self) -> str:
        lines = [
            "transactions: "
            + ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.transactions.items())),
            f"events: {self.events:,} committed; {self.log:,} records in the log, {self.repeats:,} of them repeats",
            f"effects: {self.effects:,}; handlers called {self.saw:,} times",
        ]
        for kind, count in self.violations.items():
            lines.append(f"VIOLATED {count:,} times: {kind.value}")
            lines += [f"    {example}" for example in self.examples[kind]]
        return "\n".join([*lines, "every invariant holds" if self.holds else "the invariants do NOT hold"])


@dataclass(slots=True)
class Checker:
    """Checks facts, log and effects against each other."""

    _tried: dict[str, tuple[Written, ...]] = field(default_factory=dict)
    _outcomes: dict[str, str] = field(default_factory=dict)
    _found: set[str] | None = None
    _log: list[Written] = field(default_factory=list)
    _effects: list[Written] = field(default_factory=list)
    _saw: int = 0
    _acquired: list[Acquired] = field(default_factory=list)
    _deleted: list[Deleted] = field(default_factory=list)

    def take(self, facts: Iterable[Fact]) -> None:
        """Facts of one process, in any order of processes."""
        for fact in facts:
            match fact:
                case Tried():
                    self._tried[fact.transaction] = fact.events
                case Ended():
                    self._outcomes[fact.transaction] = fact.outcome
                case Saw():
                    self._saw += len(fact.ids)
                case Acquired():
                    self._acquired.append(fact)
                case Deleted():
                    self._deleted.append(fact)

    def logged(self, event: Written) -> None:
        """Add the next record of a partition; partitions may be mixed, an aggregate is in one of them."""
        self._log.append(event)

    def effected(self, event: Written) -> None:
        """Add the next effect, in the order in which effects of an aggregate happened."""
        self._effects.append(event)

    def unknown(self) -> set[str]:
        """Ids of events of which only the database knows whether they were committed."""
        return {
            event.id for name, events in self._tried.items() if self._outcome(name) == "unknown" for event in events
        }

    def settle(self, found: Iterable[str]) -> None:
        """All ids that the database has as committed."""
        self._found = set(found)

    def verdict(self) -> Verdict:
        """Return the verdict on all facts; raises ValueError while something is unknown and `settle` was not called."""
        if self._found is None and self.unknown():
            raise ValueError(f"{len(self.unknown())} events are unknown: ask the database, then settle() them")
        findings = _Findings()
        committed = self._committed(findings)
        repeats = _check_log(self._log, committed, findings)
        _check_effects(self._effects, committed, findings)
        _check_fence(self._acquired, self._deleted, findings)
        return Verdict(
            Counter(self._outcome(name) for name in self._tried),
            len(committed),
            len(self._log),
            repeats,
            len(self._effects),
            self._saw,
            findings.counts,
            findings.examples,
        )

    def _outcome(self, transaction: str) -> str:
        return self._outcomes.get(transaction, "unknown")

    def _committed(self, findings: "_Findings") -> dict[str, Written]:
        committed = {}
        for name, events in self._tried.items():
            outcome = self._outcome(name)
            for event in events:
                if outcome == "committed" and self._found is not None and event.id not in self._found:
                    findings.add(Kind.FORGOTTEN, event)
                elif outcome == "committed" or (outcome == "unknown" and event.id in (self._found or ())):
                    committed[event.id] = event
        return committed


class _Findings:
    """Violations, counted, a few of them in words."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self.examples: dict[Kind, list[str]] = {}

    def add(self, kind: Kind, what: object, more: str = "") -> None:
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            words = f"{what.aggregate} version {what.version} ({what.id})" if isinstance(what, Written) else str(what)
            examples.append(words + more)


def _check_log(log: Sequence[Written], committed: Mapping[str, Written], findings: _Findings) -> int:
    """I1, I2 and I3 of the log; returns how many records were repeats."""
    seen: set[str] = set()
    highest: dict[str, int] = {}
    repeats = 0
    for event in log:
        if event.id in seen:
            repeats += 1
            continue
        seen.add(event.id)
        if committed.get(event.id) != event:
            findings.add(Kind.INVENTED, event)
        if event.version < (before := highest.get(event.aggregate, 0)):
            findings.add(Kind.DISORDER, event, f", behind version {before}")
        highest[event.aggregate] = max(before, event.version)
    for id_, event in committed.items():
        if id_ not in seen:
            findings.add(Kind.LOST, event)
    return repeats


def _check_effects(effects: Sequence[Written], committed: Mapping[str, Written], findings: _Findings) -> None:
    seen: set[str] = set()
    highest: dict[str, int] = {}
    for event in effects:
        if event.id in seen:
            findings.add(Kind.TWICE, event)
            continue
        seen.add(event.id)
        if committed.get(event.id) != event:
            findings.add(Kind.UNFOUNDED, event)
        if event.version < (before := highest.get(event.aggregate, 0)):
            findings.add(Kind.OVERTAKEN, event, f", behind version {before}")
        highest[event.aggregate] = max(before, event.version)
    for id_, event in committed.items():
        if id_ not in seen:
            findings.add(Kind.IDLE, event)


def _check_fence(acquired: Sequence[Acquired], deleted: Sequence[Deleted], findings: _Findings) -> None:
    """Check that a deletion which began after a newer epoch of its shard was handed out was refused."""
    since: dict[int, list[tuple[int, int]]] = {}  # shard → (epoch, moment)
    for fact in acquired:
        for shard, epoch in fact.epochs.items():
            since.setdefault(shard, []).append((epoch, fact.moment))
    for one in deleted:
        for shard, epoch in one.epochs.items():
            newer = [other for other, moment in since.get(shard, ()) if other > epoch and moment < one.moment]
            if newer:
                findings.add(Kind.UNFENCED, f"shard {shard}, epoch {epoch}, when it was at {max(newer)}")


__all__ = [
    "Acquired",
    "Checker",
    "Deleted",
    "Ended",
    "Fact",
    "Kind",
    "Recorder",
    "Saw",
    "Tried",
    "Verdict",
    "Written",
    "read",
]
