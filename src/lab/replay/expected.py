"""The expected results of the files: units and money, by product, by customer and in all. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from lab.system.dataset import History, Order, Product

CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over some orders."""

    orders: int
    units: int
    money: Decimal
    units_by_product: Counter[str]
    money_by_product: dict[str, Decimal]
    orders_by_customer: Counter[str]


def totals(history: History, orders: Iterable[Order]) -> Totals:
    """Return the sums over `orders`, priced with the files' own prices."""
    units: Counter[str] = Counter()
    customers: Counter[str] = Counter()
    for order in orders:
        customers[order.customer] += 1
        for line in order.lines:
            units[line.sku] += line.quantity
    money = {sku: worth(history.products[sku], count) for sku, count in units.items()}
    return Totals(customers.total(), units.total(), sum(money.values(), Decimal("0.00")), units, money, customers)


def worth(product: Product, units: int) -> Decimal:
    """Return the price of that number of units."""
    return (product.price * units).quantize(CENT)


def order_total(history: History, order: Order) -> Decimal:
    """Return the total of an order."""
    return sum((worth(history.products[line.sku], line.quantity) for line in order.lines), Decimal("0.00"))


def starting_stock(history: History, *, enough: bool) -> dict[str, int]:
    """Return the units on hand before the first order: the files' own, or enough for all orders together."""
    asked: Counter[str] = Counter()
    if enough:
        asked = totals(history, history.orders).units_by_product
    return {sku: max(product.stock, asked[sku]) for sku, product in history.products.items()}
