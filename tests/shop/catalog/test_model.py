from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.catalog.model import TEXT_LIMIT, Details, Filter, Place, Product, Sort, Stale, sku_flaws
from shop.kernel import Money

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHAI = Details(name="Chai", category="Beverages", price=Money.of("18.00"))


def chai() -> Product:
    return Product.new("NW-001", CHAI, now=NOW)


def test_a_change_is_the_next_version():
    """Whatever differs makes one new version, later than the one before."""
    dearer = replace(CHAI, price=Money.of("19.00"))

    after = chai().changed(dearer, expected=1, now=NOW + timedelta(seconds=1))

    assert (after.version, after.details, after.updated_at) == (2, dearer, NOW + timedelta(seconds=1))
    assert after.created_at == NOW


def test_no_change_is_no_version():
    """A change that changes nothing is nobody's news."""
    product = chai()

    assert product.changed(CHAI, expected=None, now=NOW + timedelta(days=1)) is product


@pytest.mark.parametrize("expected", [0, 2])
def test_a_writer_that_read_another_version_is_refused(expected: int):
    """Two admins who read the same version can't both write, not even the same details."""
    with pytest.raises(Stale, match="at version 1"):
        chai().changed(CHAI, expected=expected, now=NOW)


def test_time_never_runs_back():
    """A clock that is behind doesn't make a version older than the one before."""
    after = chai().changed(replace(CHAI, available=False), expected=None, now=NOW - timedelta(hours=1))

    assert after.updated_at == NOW


def test_every_flaw_is_named():
    """Who sends a bad product learns everything that is wrong with it at once."""
    bad = Details(name=" ", category="a\nb", price=Money.of("0.00", "EUR"), supplier="x" * (TEXT_LIMIT + 1), unit="")

    assert [flaw.pointer for flaw in bad.flaws()] == [
        "/name",
        "/category",
        "/supplier",
        "/unit",
        "/price/amount",
        "/price/currency",
    ]


@pytest.mark.parametrize("amount", ["0.01", "1000000.00"])
def test_the_limits_of_a_price_are_prices(amount: str):
    """Both ends of the range are allowed."""
    assert replace(CHAI, price=Money.of(amount)).flaws() == []


@pytest.mark.parametrize("amount", ["0.00", "-1.00", "1000000.01"])
def test_nothing_is_sold_for_nothing_or_a_fortune(amount: str):
    """A price outside the range is a flaw."""
    assert [flaw.pointer for flaw in replace(CHAI, price=Money.of(amount)).flaws()] == ["/price/amount"]


@pytest.mark.parametrize("sku", ["A", "NW-001", "A" * 32, "1-2-3"])
def test_good_skus(sku: str):
    """Capital letters, digits, inner hyphens, up to 32."""
    assert sku_flaws(sku) == []


@pytest.mark.parametrize("sku", ["", "a", "NW-", "-NW", "NW 1", "NW/1", "A" * 33, "Ä", "NW-001\n"])
def test_bad_skus(sku: str):
    """Anything else can't be part of a path, a key and a file alike."""
    assert [flaw.pointer for flaw in sku_flaws(sku)] == ["/sku"]


@given(st.text(max_size=20))
def test_words_searched_for_are_taken_literally(words: str):
    """No wildcard of theirs survives: without its escapes the pattern is the words between two wildcards."""
    pattern = Filter(q=words).pattern
    if not words.strip():
        assert pattern is None
        return

    assert pattern is not None
    assert pattern[0] == pattern[-1] == "%"
    plain, rest = "", list(pattern[1:-1])
    while rest:
        character = rest.pop(0)
        assert character not in "%_"
        plain += rest.pop(0) if character == "\\" else character
    assert plain == words.strip()


def test_prices_asked_for_must_be_prices():
    """A bound that no numeric column could hold is refused before PostgreSQL sees it, each by name."""
    strange = Filter(min_price=Decimal("NaN"), max_price=Decimal("1e40"))

    assert [flaw.pointer for flaw in strange.flaws()] == ["/query/min_price", "/query/max_price"]
    assert Filter(min_price=Decimal("0"), max_price=Decimal("12.5")).flaws() == []


@pytest.mark.parametrize(
    ("sort", "value", "fits"),
    [
        (Sort.PRICE, "18.00", True),
        (Sort.PRICE_DESCENDING, "chai", False),
        (Sort.PRICE, "1e9", False),
        (Sort.NAME, "18.00", True),
        (Sort.SKU, "a\0b", False),
    ],
)
def test_a_place_belongs_to_its_sort(sort: Sort, value: str, fits: bool):
    """A forged cursor is recognised before it reaches a query."""
    assert Place(value, "NW-001").fits(sort) is fits
