"""DESIGN §1 after a storm, one by one, each with the counts it was checked on. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from lab.checks.kafka_log import Entry
from lab.faults.run import Struck, hits
from lab.replay.reconcile import Case, Check

ORDERS, INVENTORY, PRODUCTS = "orders", "inventory", "products"
VERSIONED = {ORDERS: "order.", INVENTORY: "inventory.updated", PRODUCTS: "product."}
"""Events that carry their aggregate's version, by topic."""
DEADLINE = 3.5  # seconds: the checkout's three and the way there
AFTERMATH = 15.0  # seconds after an accident in which its victim may still be coming back
STALL_MARGIN = 2.0  # seconds around a stall of the machine
ANSWERS = frozenset({201, 202, 402})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a checkout as its client saw it. `status` is None when no answer came; `took` in seconds."""

    at: float
    took: float
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was found. Versions are by topic and aggregate, as the databases have them."""

    case: Case
    log: Sequence[Entry]
    versions: Mapping[str, Mapping[str, int]]
    expected: Mapping[str, frozenset[str]]
    """Keys that must have an event, by its type."""
    unpublished: Mapping[str, int]
    inbox: Mapping[str, int]
    ledger_lines: int
    impossible_lines: int
    repeated: int
    otherwise: Sequence[str]
    """Repeats that were answered otherwise than the first time."""
    attempts: Sequence[Attempt] = ()
    struck: Sequence[Struck] = ()
    stalls: Sequence[tuple[float, float]] = ()
    """When the client's own process got no CPU: such a machine keeps no deadline."""
    reconciled: Sequence[Check] = field(default_factory=tuple)


def judge(evidence: Evidence) -> list[Check]:
    """I1 to I8."""
    distinct = len({entry.id for entry in evidence.log})
    repeats = len(evidence.log) - distinct
    captured = [payment for payment in evidence.case.entries.payments.values() if payment.captures]
    calm, degraded, late = _degraded(evidence)
    applied = ", ".join(f"{group} {count:,}" for group, count in sorted(evidence.inbox.items()))
    expected = sum(map(len, evidence.expected.values()))
    return [
        Check(
            "I1 nothing lost",
            f"{_versions(evidence):,} versions of {_aggregates(evidence):,} aggregates and {expected:,} other effects, "
            "each with its event in Kafka; outboxes empty",
            tuple(_lost(evidence)),
        ),
        Check("I2 nothing invented", f"{distinct:,} events, each of what is committed", tuple(_odd(evidence))),
        Check("I3 in order", f"{distinct:,} events, {repeats:,} repeats of them", tuple(_order(evidence))),
        Check("I4 effect once", f"{repeats:,} repeats in Kafka; applied: {applied}", tuple(_once(evidence))),
        Check(
            "I5 money",
            f"{len(captured):,} captures in the provider's ledger, none twice, worth what is confirmed",
            tuple(_money(evidence)),
        ),
        Check(
            "I6 stock",
            f"{evidence.ledger_lines:,} lines of the ledger, {len(evidence.case.entries.stock)} products",
            tuple(_stock(evidence)),
        ),
        Check("I7 same key, same answer", f"{evidence.repeated:,} orders sent again", tuple(evidence.otherwise)),
        Check(
            "I8 degrade, don't fail",
            f"{calm:,} checkouts while gateway, orders and its database were left alone: {degraded:,} of them answered "
            f"202, all within {DEADLINE:g} s ({_stalled(evidence):.0f} s left out in which the machine stood still)",
            tuple(late),
        ),
    ]


def _versions(evidence: Evidence) -> int:
    return sum(sum(versions.values()) for versions in evidence.versions.values())


def _aggregates(evidence: Evidence) -> int:
    return sum(map(len, evidence.versions.values()))


def _seen(evidence: Evidence) -> dict[tuple[str, str], dict[int, set[str]]]:
    """Event ids by version, by topic and aggregate."""
    seen: dict[tuple[str, str], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for entry in evidence.log:
        if _versioned(entry) and entry.version is not None:
            seen[entry.topic, entry.key][entry.version].add(entry.id)
    return seen


def _versioned(entry: Entry) -> bool:
    return entry.type.startswith(VERSIONED.get(entry.topic, "\0"))


def _lost(evidence: Evidence) -> Iterator[str]:
    seen = _seen(evidence)
    for topic, versions in evidence.versions.items():
        for key, version in versions.items():
            if missing := set(range(1, version + 1)) - set(seen.get((topic, key), {})):
                yield f"{topic} {_named(evidence, key)}: no event for version {', '.join(map(str, sorted(missing)))}"
    told: dict[str, set[str]] = defaultdict(set)
    for entry in evidence.log:
        told[entry.type].add(entry.key)
    for kind, keys in evidence.expected.items():
        for key in sorted(keys - told[kind]):
            yield f"no {kind} of {_named(evidence, key)}"
    for service, count in evidence.unpublished.items():
        if count:
            yield f"{count} events still wait in the outbox of {service}"


def _odd(evidence: Evidence) -> Iterator[str]:
    for (topic, key), by_version in _seen(evidence).items():
        known = evidence.versions.get(topic, {}).get(key, 0)
        for version, ids in by_version.items():
            if version > known:
                yield f"{topic} {_named(evidence, key)}: an event of version {version}, committed is {known}"
            if len(ids) > 1:
                yield f"{topic} {_named(evidence, key)}: {len(ids)} different events of version {version}"
    for entry in evidence.log:
        if entry.type in evidence.expected and entry.key not in evidence.expected[entry.type]:
            yield f"{entry.type} of {_named(evidence, entry.key)}, of which the books know nothing"


def _order(evidence: Evidence) -> Iterator[str]:
    known: set[str] = set()
    newest: dict[tuple[str, str], int] = {}
    places: dict[tuple[str, str], int] = {}
    for entry in evidence.log:
        aggregate = (entry.topic, entry.key)
        if places.setdefault(aggregate, entry.partition) != entry.partition:
            yield f"{entry.topic} {_named(evidence, entry.key)} lies in two partitions"
        if entry.id in known:
            continue
        known.add(entry.id)
        if not _versioned(entry) or entry.version is None:
            continue
        if entry.version < newest.get(aggregate, 0):
            yield (
                f"{entry.topic} {_named(evidence, entry.key)}: version {entry.version} first came after "
                f"{newest[aggregate]}"
            )
        newest[aggregate] = max(entry.version, newest.get(aggregate, 0))


def _once(evidence: Evidence) -> Iterator[str]:
    """Compare the consumers' effects with the files, to the last unit, mail and cent."""
    effects = ("reservations", "stock and its ledger", "mails", "analytics", "dead letters")
    for check in evidence.reconciled:
        if check.name in effects:
            yield from check.differences
    distinct = {entry.id for entry in evidence.log}
    for group, count in evidence.inbox.items():
        if count > len(distinct):
            yield f"{group} has applied {count} events, and there are {len(distinct)}"


def _money(evidence: Evidence) -> Iterator[str]:
    case = evidence.case
    for order, payment in case.entries.payments.items():
        if payment.captures > 1:
            yield f"{_named(evidence, order)} was charged {payment.captures} times"
    kept = sum((p.captured - p.refunded for p in case.entries.payments.values()), Decimal(0))
    if kept != case.sums().money:
        yield f"the provider kept {kept}, confirmed orders are worth {case.sums().money}"


def _stock(evidence: Evidence) -> Iterator[str]:
    if evidence.impossible_lines:
        yield f"{evidence.impossible_lines} lines of the stock's ledger leave less than nothing"
    for sku, entry in evidence.case.entries.stock.items():
        if (entry.on_hand, entry.reserved) != (entry.ledger_on_hand, entry.ledger_reserved) or not entry.gapless:
            yield f"{sku}: its ledger doesn't add up to its stock"
        if entry.on_hand < entry.reserved:
            yield f"{sku} is oversold"


def _degraded(evidence: Evidence) -> tuple[int, int, list[str]]:
    """Tries while nothing that answers checkouts was hit: how many, how many of them 202, and those that failed."""
    needed = ("gateway", "orders")
    rough = [(begin - STALL_MARGIN, end + STALL_MARGIN) for begin, end in evidence.stalls]
    rough += [
        (struck.began, struck.ended + AFTERMATH)
        for struck in evidence.struck
        if any(hits(struck.accident, service) for service in needed)
    ]
    calm = [
        each
        for each in evidence.attempts
        if not any(each.at < end and each.at + each.took > begin for begin, end in rough)
    ]
    bad = [
        f"a checkout at {each.at:.1f} was answered {each.status} after {each.took:.2f} s"
        for each in calm
        if each.took > DEADLINE or (each.status not in ANSWERS and each.status not in (401, 409, 429))
    ]
    return len(calm), Counter(each.status for each in calm)[202], bad


def _stalled(evidence: Evidence) -> float:
    return sum(end - begin for begin, end in evidence.stalls)


def _named(evidence: Evidence, key: str) -> str:
    """With the number that the file has for it."""
    number = next((placed.order.number for placed in evidence.case.placed.values() if placed.id == key), None)
    return f"order {number} ({key})" if number else key


__all__ = ["Attempt", "Evidence", "judge"]
