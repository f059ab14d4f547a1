"""A product: what can be bought, and at which price. Pure; each change is the next version of the whole product."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from shop.kernel import CURRENCY, Money

SKU_PATTERN = "^[A-Z0-9](?:[A-Z0-9-]{0,30}[A-Z0-9])?$"
PRICE_LIMIT = Decimal("1000000.00")  # in the currency of the catalog, inclusive
TEXT_LIMIT = 200  # characters of a name, category, supplier or unit

_sku = re.compile(SKU_PATTERN)


class Stale(ValueError):
    """The product has moved on since the caller read it."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """One broken rule of a product: where (a JSON pointer) and why."""

    pointer: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """The details of a product that an admin sets."""

    name: str
    category: str
    price: Money
    available: bool = True
    supplier: str | None = None
    unit: str | None = None

    def flaws(self) -> list[Flaw]:
        """Every broken rule, not only the first."""
        texts = {"name": self.name, "category": self.category, "supplier": self.supplier, "unit": self.unit}
        found = [
            Flaw(f"/{field}", f"must have 1 to {TEXT_LIMIT} characters that print")
            for field, text in texts.items()
            if text is not None and not _prints(text)
        ]
        if not 0 < self.price.amount <= PRICE_LIMIT:
            found.append(Flaw("/price/amount", f"must be more than 0 and at most {PRICE_LIMIT}"))
        if self.price.currency != CURRENCY:
            found.append(Flaw("/price/currency", f"must be {CURRENCY}, the currency of the catalog"))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product at one of its versions; versions count from 1 without a gap."""

    sku: str
    details: Details
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def new(cls, sku: str, details: Details, *, now: datetime) -> "Product":
        """Return the first version of a product."""
        return cls(sku=sku, details=details, version=1, created_at=now, updated_at=now)

    def changed(self, details: Details, *, expected: int | None, now: datetime) -> "Product":
        """Return the next version, or this one when nothing differs. Raises Stale unless `expected` is its version."""
        if expected is not None and expected != self.version:
            raise Stale(f"product {self.sku} is at version {self.version}, not {expected}: read it again")
        if details == self.details:
            return self
        return replace(self, details=details, version=self.version + 1, updated_at=max(now, self.updated_at))


class Sort(StrEnum):
    """Orders of a list; equal products follow by sku."""

    SKU = "sku"
    SKU_DESCENDING = "-sku"
    NAME = "name"
    NAME_DESCENDING = "-name"
    PRICE = "price"
    PRICE_DESCENDING = "-price"

    @property
    def column(self) -> str:
        """The sorted column, without the direction."""
        return self.value.removeprefix("-")

    @property
    def descending(self) -> bool:
        """True if the greatest comes first."""
        return self.value.startswith("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Conditions on the products of a list; None for no condition."""

    q: str | None = None
    category: str | None = None
    available: bool | None = None
    min_price: Decimal | None = None
    max_price: Decimal | None = None

    @property
    def pattern(self) -> str | None:
        """The words searched for as an ILIKE pattern in which nothing of theirs is a wildcard."""
        words = (self.q or "").strip()
        if not words:
            return None
        return "%" + re.sub(r"([\\%_])", r"\\\1", words) + "%"

    def flaws(self) -> list[Flaw]:
        """Bounds that no price can have."""
        bounds = {"min_price": self.min_price, "max_price": self.max_price}
        return [
            Flaw(f"/query/{name}", f"must be 0 to {PRICE_LIMIT}, with at most two decimals")
            for name, bound in bounds.items()
            if bound is not None and not _is_price(bound)
        ]


@dataclass(frozen=True, slots=True)
class Place:
    """The end of a page of a sorted list: the last product's sort value, as text, and its sku."""

    value: str
    sku: str

    def fits(self, sort: Sort) -> bool:
        """Return whether the value is one of that sort's."""
        if sort.column != "price":
            return "\0" not in self.value + self.sku
        return re.fullmatch(r"\d{1,12}\.\d\d", self.value) is not None and "\0" not in self.sku


def sku_flaws(sku: str) -> list[Flaw]:
    """Return the flaws of a sku; empty for a good one."""
    if _sku.fullmatch(sku):
        return []
    return [Flaw("/sku", "must be 1 to 32 capital letters, digits and inner hyphens")]


def _is_price(bound: Decimal) -> bool:
    return bound.is_finite() and 0 <= bound <= PRICE_LIMIT and bound == round(bound, 2)


def _prints(text: str) -> bool:
    return text.strip() != "" and len(text) <= TEXT_LIMIT and text.isprintable()
