"""Comparison of the books with the files: every check is pure, and lists each difference."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from lab.replay import expected
from lab.replay.books import Entries, Figures
from lab.replay.place import Placed
from lab.system.dataset import History, Order

CANCELLED, CONFIRMED = "cancelled", "confirmed"


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: the quantity, the result, and every difference."""

    name: str
    found: str
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything a check needs. `analytics` holds what it shows now, `before` what it showed at the start."""

    history: History
    placed: Mapping[str, Placed]
    customers: Mapping[str, str]
    """The shop's customer id by the history's."""
    start: Mapping[str, int]
    """Units on hand at the start."""
    enough: bool
    entries: Entries
    before: Figures
    analytics: Figures

    def confirmed(self) -> list[tuple[Order, str]]:
        """Orders that orders calls confirmed, with their ids."""
        return [(order, id_) for order, id_ in self.saved() if self.status(id_) == CONFIRMED]

    def saved(self) -> list[tuple[Order, str]]:
        """Orders that got an id."""
        return [(each.order, each.id) for each in self.placed.values() if each.id is not None]

    def status(self, id_: str) -> str:
        """Return the status in orders' database."""
        entry = self.entries.orders.get(id_)
        return entry.status if entry else "missing"

    def sums(self) -> expected.Totals:
        """The totals of the confirmed orders by the files."""
        return expected.totals(self.history, (order for order, _ in self.confirmed()))


def reconcile(case: Case) -> list[Check]:
    """Every check, in the order a person reads them."""
    checks: tuple[tuple[str, Callable[[Case], Iterator[str]], Callable[[Case], str]], ...] = (
        ("orders", _orders, _orders_found),
        ("contents and prices", _contents, lambda case: f"{sum(len(o.lines) for o, _ in case.saved()):,} lines"),
        ("units and money", _sums, lambda case: f"{case.sums().units:,} units, {case.sums().money:,}"),
        ("orders by customer", _customers, lambda case: f"{len(case.sums().orders_by_customer)} customers"),
        ("reservations", _reservations, lambda case: f"{len(case.entries.reserved):,} lines reserved"),
        ("stock and its ledger", _stock, lambda case: f"{len(case.start)} products"),
        ("provider's ledger", _provider, _provider_found),
        ("mails", _mails, lambda case: f"{len(case.entries.mails):,} distinct"),
        ("analytics", _analytics, lambda case: f"{case.analytics.net - case.before.net:,}"),
        ("dead letters", _dead_letters, lambda case: str(sum(case.entries.dead_letters.values()))),
    )
    return [Check(name, found(case), tuple(check(case))) for name, check, found in checks]


def _orders(case: Case) -> Iterator[str]:
    for order in case.history.orders:
        if order.number not in case.placed:
            yield f"order {order.number} was never answered"
    for placed in case.placed.values():
        if placed.id is None and (case.enough or not placed.out_of_stock):
            yield f"order {placed.order.number} was refused: {placed.status} {placed.body}"
    for order, id_ in case.saved():
        status = case.status(id_)
        allowed = {CONFIRMED} if case.enough else {CONFIRMED, CANCELLED}
        if status not in allowed:
            yield f"order {order.number} ({id_}) is {status}"
    if len({id_ for _, id_ in case.saved()}) != len(case.saved()):
        yield "two orders of the file have the same id"


def _orders_found(case: Case) -> str:
    status = Counter(case.status(id_) for _, id_ in case.saved())
    refused = len(case.placed) - len(case.saved())
    return f"{status[CONFIRMED]} confirmed, {status[CANCELLED]} cancelled and refunded, {refused} refused"


def _contents(case: Case) -> Iterator[str]:
    for order, id_ in case.saved():
        entry = case.entries.orders.get(id_)
        if entry is None:
            continue
        prices = case.history.products
        wanted = sorted((line.sku, line.quantity, prices[line.sku].price) for line in order.lines)
        if sorted(entry.lines) != wanted:
            yield f"order {order.number} has the lines {sorted(entry.lines)} instead of {wanted}"
        if entry.total != (total := expected.order_total(case.history, order)):
            yield f"order {order.number} costs {entry.total} instead of {total}"
        if entry.customer_id != case.customers.get(order.customer):
            yield f"order {order.number} belongs to {entry.customer_id} instead of {order.customer}"


def _sums(case: Case) -> Iterator[str]:
    """Counted from orders' own lines and prices, against the files' quantities and prices."""
    units: Counter[str] = Counter()
    money: dict[str, Decimal] = {}
    for _, id_ in case.confirmed():
        for sku, quantity, price in case.entries.orders[id_].lines:
            units[sku] += quantity
            money[sku] = money.get(sku, Decimal(0)) + price * quantity
    sums = case.sums()
    yield from _compare("units of", sums.units_by_product, units)
    yield from _compare("money of", sums.money_by_product, money)
    if case.enough:
        everything = expected.totals(case.history, case.history.orders)
        yield from _differ("confirmed units in all", everything.units, units.total())
        yield from _differ("confirmed money in all", everything.money, sum(money.values(), Decimal(0)))


def _customers(case: Case) -> Iterator[str]:
    found = Counter(case.entries.orders[id_].customer_id for _, id_ in case.confirmed())
    wanted = {case.customers[name]: count for name, count in case.sums().orders_by_customer.items()}
    yield from _compare("orders of customer", wanted, found)


def _reservations(case: Case) -> Iterator[str]:
    held = dict(case.entries.reserved)
    for order, id_ in case.confirmed():
        state = case.entries.reservations.get(id_, "missing")
        if state != "reserved":
            yield f"order {order.number} is confirmed, its reservation is {state}"
        for line in order.lines:
            yield from _differ(f"order {order.number} holds of {line.sku}", line.quantity, held.pop((id_, line.sku), 0))
    for (id_, sku), units in held.items():
        yield f"order {id_} still holds {units} of {sku}, though it isn't confirmed"


def _stock(case: Case) -> Iterator[str]:
    sold = case.sums().units_by_product
    for sku, start in case.start.items():
        entry = case.entries.stock.get(sku)
        if entry is None:
            yield f"{sku} has no stock at all"
            continue
        left = entry.on_hand - entry.reserved
        if left < 0 or sold[sku] + left != start:
            yield f"{sku}: {sold[sku]} confirmed + {left} left isn't the starting stock of {start}"
        if (entry.on_hand, entry.reserved) != (entry.ledger_on_hand, entry.ledger_reserved) or not entry.gapless:
            yield f"{sku}: its ledger adds up to {entry.ledger_on_hand} and {entry.ledger_reserved} instead of " + (
                f"{entry.on_hand} on hand and {entry.reserved} reserved, or has a gap"
            )


def _provider(case: Case) -> Iterator[str]:
    for order, id_ in case.saved():
        entry, total = case.entries.payments.get(id_), expected.order_total(case.history, order)
        worth = total if case.status(id_) == CONFIRMED else Decimal(0)
        if entry is None:
            yield f"order {order.number} has no payment"
        elif entry.captured - entry.refunded != worth or entry.captures > 1:
            yield f"order {order.number} is {case.status(id_)} and worth {worth}: the provider captured " + (
                f"{entry.captured} in {entry.captures} and gave back {entry.refunded}"
            )
    kept = sum((p.captured - p.refunded for p in case.entries.payments.values()), Decimal(0))
    yield from _differ("captured − refunded in all", case.sums().money, kept)


def _provider_found(case: Case) -> str:
    captured = sum((p.captured for p in case.entries.payments.values()), Decimal(0))
    refunded = sum((p.refunded for p in case.entries.payments.values()), Decimal(0))
    return f"{captured:,} captured − {refunded:,} refunded"


def _mails(case: Case) -> Iterator[str]:
    kinds = Counter((mail.order_id or mail.customer_id, mail.kind) for mail in case.entries.mails)
    for customer, id_ in case.customers.items():
        yield from _differ(f"welcome mails to {customer}", 1, kinds[id_, "welcome"])
    for order, id_ in case.saved():
        entry = case.entries.payments.get(id_)
        cancelled, refunded = case.status(id_) == CANCELLED, bool(entry and entry.refunded)
        for kind, wanted in ((CANCELLED, cancelled), ("refunded", refunded)):
            yield from _differ(f"mails {kind!r} for order {order.number}", int(wanted), kinds[id_, kind])
        if (count := kinds[id_, CONFIRMED]) > 1 or (case.status(id_) == CONFIRMED and not count):
            yield f"{count} mails 'confirmed' for order {order.number}"
    for mail in case.entries.mails:
        if mail.state != "sent":
            yield f"mail {mail.id} ({mail.kind}) is {mail.state}"
        elif case.entries.delivered is not None and mail.id not in case.entries.delivered:
            yield f"mail {mail.id} ({mail.kind}) is called sent and isn't in the mailbox"


def _analytics(case: Case) -> Iterator[str]:
    sums, now, before = case.sums(), case.analytics, case.before
    yield from _differ("completed orders in analytics", sums.orders, now.completed - before.completed)
    yield from _differ("net revenue in analytics", sums.money, now.net - before.net)
    units = {sku: count - before.units.get(sku, 0) for sku, count in now.units.items()}
    money = {sku: amount - before.money.get(sku, Decimal(0)) for sku, amount in now.money.items()}
    yield from _compare("analytics' units of", sums.units_by_product, units)
    yield from _compare("analytics' money of", sums.money_by_product, money)
    wanted = {case.customers[name]: count for name, count in sums.orders_by_customer.items()}
    found = {id_: count - before.customers.get(id_, 0) for id_, count in now.customers.items()}
    yield from _compare("analytics' orders of customer", wanted, found)


def _dead_letters(case: Case) -> Iterator[str]:
    for service, count in case.entries.dead_letters.items():
        if count:
            yield f"{service} has {count} dead letters"


def _compare(
    what: str, wanted: Mapping[str, int] | Mapping[str, Decimal], found: Mapping[str, int] | Mapping[str, Decimal]
) -> Iterator[str]:
    for key in sorted({*wanted, *found}):
        yield from _differ(f"{what} {key}", wanted.get(key, 0), found.get(key, 0))


def _differ(what: str, wanted: int | Decimal, found: int | Decimal) -> Iterator[str]:
    if wanted != found:
        yield f"{what}: {found} instead of {wanted}"
