"""The use cases of auth: accounts and their sessions, tokens, and the keys that sign them."""

from shop.auth.service.accounts import Accounts, FirstAdmin, Grant
from shop.auth.service.keys import KeyRing
from shop.auth.service.tokens import Clients, IssuedToken, TokenRefused, Tokens

__all__ = ["Accounts", "Clients", "FirstAdmin", "Grant", "IssuedToken", "KeyRing", "TokenRefused", "Tokens"]
