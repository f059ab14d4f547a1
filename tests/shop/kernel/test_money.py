"""Money is exact, of one currency, and written in one way."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.kernel import CurrencyMismatch, Money

CENTS = st.integers(-(10**9), 10**9).map(lambda cents: Money(Decimal(cents) / 100))


def test_is_written_with_two_decimals() -> None:
    """18 is written 18.00, and reads back as the same."""
    encoded = msgspec.json.encode(Money.of("18"))

    assert encoded == b'{"amount":"18.00","currency":"USD"}'
    assert msgspec.json.decode(encoded, type=Money) == Money.of("18.00")


@given(CENTS, CENTS, st.integers(0, 10_000))
def test_arithmetic_is_exact(one: Money, other: Money, quantity: int) -> None:
    """No cent appears or vanishes."""
    assert one + other - other == one
    assert (one * quantity).amount == one.amount * quantity
    assert Money.sum([one, other, one]) == one * 2 + other


@pytest.mark.parametrize("wrong", ["0.001", "NaN", "Infinity", "1e15", "-1e13"])
def test_refuses_what_is_no_amount(wrong: str) -> None:
    """Fractions of a cent, no numbers, and amounts beyond the column are refused."""
    with pytest.raises(ValueError, match="amount"):
        Money.of(wrong)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f'{{"amount":"{wrong}","currency":"USD"}}', type=Money)


def test_refuses_mixed_currencies() -> None:
    """Dollars and euros don't add up."""
    with pytest.raises(CurrencyMismatch):
        Money.of(1) + Money.of(1, "EUR")
    with pytest.raises(ValueError, match="currency"):
        Money.of(1, "usd")


@pytest.mark.parametrize("amount", ["1e999999999", "-1e999999999", "1e-999999999", "9" * 100_000, "1e12"])
def test_a_number_of_any_size_is_refused_as_any_other(amount: str) -> None:
    """Neither an exponent nor digits without end are more than a wrong amount."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"amount": amount}), type=Money)
