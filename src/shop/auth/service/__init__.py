"""The use cases of auth: accounts and their sessions, tokens, the keys that sign them, and the time they go by."""

from shop.auth.service.accounts import Accounts, FirstAdmin, Grant
from shop.auth.service.clock import SharedClock
from shop.auth.service.keys import KeyRing
from shop.auth.service.tokens import Clients, IssuedToken, TokenRefused, Tokens

__all__ = [
    "Accounts",
    "Clients",
    "FirstAdmin",
    "Grant",
    "IssuedToken",
    "KeyRing",
    "SharedClock",
    "TokenRefused",
    "Tokens",
]
