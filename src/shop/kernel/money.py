"""Money: an exact amount in one currency. Floats never enter, cents never vanish."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Self

import msgspec

CURRENCY = "USD"  # the currency of the catalog
CENT = Decimal("0.01")
LIMIT = Decimal(10) ** 12  # what numeric(14,2) columns hold


class CurrencyMismatch(ValueError):
    """Amounts of two currencies were combined."""


class Money(msgspec.Struct, frozen=True, order=False):
    """An amount with exactly two decimals, written `{"amount": "18.00", "currency": "USD"}`.

    Raises ValueError for an amount that isn't finite, has fractions of a cent, or exceeds ±10^12,
    and for a currency that isn't three capital letters.
    """

    amount: Decimal
    currency: str = CURRENCY

    def __post_init__(self) -> None:
        amount = self.amount
        if not amount.is_finite():
            raise ValueError(f"an amount must be a finite number, not {amount}")
        if amount.copy_abs() >= LIMIT:  # abs() would round, and overflow for an exponent of millions
            raise ValueError("an amount must be smaller than 1000000000000")
        cents = amount.quantize(CENT)
        if cents != amount:
            raise ValueError(f"an amount has at most two decimals, not {amount}")
        if len(self.currency) != 3 or not (self.currency.isascii() and self.currency.isupper()):
            raise ValueError("a currency is three capital letters, as in ISO 4217")
        msgspec.structs.force_setattr(self, "amount", cents)

    @classmethod
    def of(cls, amount: str | int | Decimal, currency: str = CURRENCY) -> Self:
        """Money from a literal: `Money.of("18.00")`."""
        return cls(Decimal(amount), currency)

    @classmethod
    def zero(cls, currency: str = CURRENCY) -> Self:
        """Nothing, in the given currency."""
        return cls(Decimal(0), currency)

    @classmethod
    def sum(cls, amounts: Iterable["Money"], currency: str = CURRENCY) -> "Money":
        """Return the sum of amounts of one currency; zero of `currency` when there are none."""
        total: Money | None = None
        for money in amounts:
            total = money if total is None else total + money
        return cls.zero(currency) if total is None else total

    def __add__(self, other: "Money") -> "Money":
        return Money(self.amount + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.amount - self._same(other), self.currency)

    def __mul__(self, quantity: int) -> "Money":
        return Money(self.amount * quantity, self.currency)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"

    def _same(self, other: "Money") -> Decimal:
        if other.currency != self.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} can't be combined")
        return other.amount
