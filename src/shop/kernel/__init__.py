"""Values that every service of the shop shares: no I/O, no rules of any one service."""

from shop.kernel.money import CURRENCY, CurrencyMismatch, Money

__all__ = ["CURRENCY", "CurrencyMismatch", "Money"]
