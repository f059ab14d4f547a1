"""Auth on a real database, with quick hashes and a clock that the test moves."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

import shop.auth
from backstay.auth import Principal, TokenVerifier
from backstay.db import Database
from backstay.outbox import Outbox
from backstay.testing import FakeClock
from shop.auth.config import ServiceClient
from shop.auth.providers import KeySafe, Passwords
from shop.auth.service import Accounts, Clients, FirstAdmin, Grant, KeyRing, Tokens

MIGRATIONS = Path(shop.auth.__file__).parent / "migrations"
ISSUER = "https://auth.test"
PASSWORD = "correct horse battery"
HERE = "192.0.2.1"


def quick_passwords(**options: int) -> Passwords:
    return Passwords(**{"memory_kib": 8, "time_cost": 1, "parallelism": 1, **options})


@dataclass
class House:
    """Auth, and a look behind its doors."""

    db: Database
    outbox: Outbox
    clock: FakeClock
    passwords: Passwords
    keys: KeyRing
    tokens: Tokens
    accounts: Accounts
    clients: Clients

    async def customer(self, email: str = "ann@example.com") -> Grant:
        """A registered customer who is logged in."""
        await self.accounts.register(email, PASSWORD, "Ann")
        return await self.accounts.login(email, PASSWORD, HERE)

    def who(self, grant: Grant) -> Principal:
        verifier = TokenVerifier(ISSUER, "shop", self.keys, now=lambda: self.clock.now().timestamp())
        return verifier.verify(grant.access.value)

    async def events(self) -> list[tuple[str, dict[str, object]]]:
        rows = await self.db.fetch("SELECT type, payload FROM outbox ORDER BY seq")
        return [(row["type"], msgspec.json.decode(row["payload"])) for row in rows]

    def accounts_with(self, passwords: Passwords, *, first_admin: FirstAdmin | None = None) -> Accounts:
        """Another instance on the same database."""
        return Accounts(
            self.db,
            self.outbox,
            passwords,
            self.tokens,
            refresh_life=1000.0,
            session_life=5000.0,
            first_admin=first_admin,
            clock=self.clock,
        )

    def key_ring(self, secret: str = "", **options: float) -> KeyRing:
        """Another instance's keys."""
        lives: dict[str, float] = {"rotation": 1000.0, "token_life": 600.0, "max_age": 60.0, **options}
        return KeyRing(self.db, KeySafe(secret), clock=self.clock, **lives)  # type: ignore[arg-type]


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    """Auth on a fresh database."""
    db, clock, passwords = Database("auth", dsn=database, migrations=MIGRATIONS), FakeClock(), quick_passwords()
    outbox = Outbox(db)
    keys = KeyRing(db, KeySafe(""), rotation=1000.0, token_life=600.0, max_age=60.0, clock=clock)
    tokens = Tokens(keys, issuer=ISSUER, audience="shop", access_life=300.0, service_life=600.0, clock=clock)
    scope, audience = "payments:charge payments:read", "payments"
    clients = Clients({"orders": ServiceClient("orders", "0123456789abcdef", scope, audience)}, tokens)
    accounts = Accounts(db, outbox, passwords, tokens, refresh_life=1000.0, session_life=5000.0, clock=clock)
    async with db, keys, passwords, accounts:
        yield House(db, outbox, clock, passwords, keys, tokens, accounts, clients)
