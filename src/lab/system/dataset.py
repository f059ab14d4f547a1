"""A shop's history as CSV: products, customers, orders and their lines; what is wrong is named with its line."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
NORTHWIND = Path(__file__).parents[3] / "data" / "northwind"


class BadFile(RuntimeError):
    """A file that can't be used; the message names it, the line and what is wrong."""


@dataclass(frozen=True, slots=True)
class Product:
    """A row of products.csv."""

    sku: str
    name: str
    category: str
    supplier: str
    unit: str
    price: Decimal
    stock: int
    reorder_level: int
    discontinued: bool


@dataclass(frozen=True, slots=True)
class Customer:
    """A row of customers.csv, as far as an account needs it."""

    id: str
    company: str
    contact: str

    @property
    def email(self) -> str:
        """An address in a reserved domain."""
        return f"{self.id.lower()}@customers.example"


@dataclass(frozen=True, slots=True)
class Line:
    """A row of order_lines.csv."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Order:
    """A row of orders.csv with its lines."""

    number: str
    customer: str
    lines: tuple[Line, ...]

    @property
    def key(self) -> str:
        """Its Idempotency-Key."""
        return f"replay-{self.number}"


@dataclass(frozen=True, slots=True)
class History:
    """All four files, consistent with each other."""

    products: dict[str, Product]
    customers: dict[str, Customer]
    orders: tuple[Order, ...]


def read(folder: Path) -> History:
    """Return the history in a folder; BadFile for a missing file, a bad value, or an unresolved reference."""
    products = {product.sku: product for product in _rows(folder / "products.csv", _product)}
    customers = {customer.id: customer for customer in _rows(folder / "customers.csv", _customer)}
    lines: dict[str, list[Line]] = {}
    for number, line in _rows(folder / "order_lines.csv", _line):
        lines.setdefault(number, []).append(line)
    orders = tuple(
        Order(number, customer, tuple(lines.pop(number, ())))
        for number, customer in _rows(folder / "orders.csv", lambda row: (row["order"], row["customer"]))
    )
    history = History(products, customers, orders)
    _check(folder, history, strangers=set(lines))
    return history


def _check(folder: Path, history: History, *, strangers: set[str]) -> None:
    if strangers:
        raise BadFile(f"{folder}: lines of orders that orders.csv doesn't have: {', '.join(sorted(strangers)[:5])}")
    for order in history.orders:
        if order.customer not in history.customers:
            raise BadFile(f"{folder}: order {order.number} is of customer {order.customer}, who is unknown")
        if not order.lines:
            raise BadFile(f"{folder}: order {order.number} has no lines")
        for line in order.lines:
            if line.sku not in history.products:
                raise BadFile(f"{folder}: order {order.number} has product {line.sku}, which is unknown")


def _rows(file: Path, read_row: Callable[[dict[str, str]], T]) -> Iterator[T]:
    try:
        with file.open(encoding="utf-8", newline="") as text:
            rows = csv.DictReader(text)
            for row in rows:
                try:
                    yield read_row(row)
                except (KeyError, ValueError, InvalidOperation) as error:
                    raise BadFile(f"{file}, line {rows.line_num}: {error!r} in {row}") from error
    except FileNotFoundError:
        raise BadFile(f"{file} isn't there: the folder must have products, customers, orders and order_lines") from None


def _product(row: dict[str, str]) -> Product:
    return Product(
        sku=row["sku"],
        name=row["name"],
        category=row["category"],
        supplier=row["supplier"],
        unit=row["unit"],
        price=Decimal(row["price"]),
        stock=int(row["stock"]),
        reorder_level=int(row["reorder_level"]),
        discontinued={"true": True, "false": False}[row["discontinued"].lower()],
    )


def _customer(row: dict[str, str]) -> Customer:
    return Customer(row["customer"], row["company"], row["contact"])


def _line(row: dict[str, str]) -> tuple[str, Line]:
    return row["order"], Line(row["sku"], int(row["quantity"]))
