"""Several auths whose clocks differ judge sessions, blocks and tokens alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from backstay.auth import TokenVerifier
from backstay.clock import SYSTEM
from backstay.db import Database
from backstay.outbox import Outbox
from backstay.service import TooManyRequests
from shop.auth.model import ACCOUNT_AND_ADDRESS_FREE
from shop.auth.providers import KeySafe
from shop.auth.service import Accounts, KeyRing, SharedClock, Tokens

from .conftest import HERE, ISSUER, MIGRATIONS, PASSWORD, House, quick_passwords
from .test_accounts import failed_logins


class WrongClock:
    """The machine's clock, so many seconds ahead."""

    def __init__(self, ahead: float) -> None:
        self.ahead = timedelta(seconds=ahead)
        self.monotonic, self.sleep, self.wait = SYSTEM.monotonic, SYSTEM.sleep, SYSTEM.wait

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Instance:
    """One auth of several on the same database."""

    clock: SharedClock
    keys: KeyRing
    accounts: Accounts


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    db = Database("auth", dsn=database, migrations=MIGRATIONS)
    Outbox(db)
    async with db:
        yield db


async def instance(db: Database, ahead: float) -> Instance:
    """An auth whose machine's clock is so many seconds ahead."""
    clock = SharedClock(db, WrongClock(ahead))
    await clock.measure()
    keys = KeyRing(db, KeySafe(""), rotation=1000.0, token_life=600.0, max_age=60.0, clock=clock)
    await keys._make_missing()
    await keys.refresh()
    tokens = Tokens(keys, issuer=ISSUER, audience="shop", access_life=300.0, service_life=600.0, clock=clock)
    outbox = Outbox(db)
    passwords = quick_passwords()
    accounts = Accounts(db, outbox, passwords, tokens, refresh_life=1000.0, session_life=5000.0, clock=clock)
    return Instance(clock, keys, accounts)


@pytest.mark.parametrize("ahead", [1000.0, -1000.0, 40 * 86400.0])
async def test_instances_agree_whatever_their_clocks_say(db: Database, ahead: float) -> None:
    """A repeat of a refresh, a session, a block and a token mean the same at both."""
    right, wrong = await instance(db, 0), await instance(db, ahead)
    assert abs(wrong.clock.ahead - ahead) < 5
    await right.accounts.register("ann@example.com", PASSWORD, "Ann")
    first = await right.accounts.login("ann@example.com", PASSWORD, HERE)

    second = await right.accounts.refresh(first.refresh_token)
    again = await wrong.accounts.refresh(first.refresh_token)
    assert again.refresh_token == second.refresh_token
    third = await wrong.accounts.refresh(second.refresh_token)
    assert (await right.accounts.refresh(second.refresh_token)).refresh_token == third.refresh_token

    await wrong.accounts.prune()
    assert not await wrong.keys.rotate_if_due()
    TokenVerifier(ISSUER, "shop", right.keys).verify(third.access.value)

    house = House(db, None, None, None, None, None, wrong.accounts, None)  # type: ignore[arg-type]
    await failed_logins(house, ACCOUNT_AND_ADDRESS_FREE)
    with pytest.raises(TooManyRequests) as blocked:
        await right.accounts.login("ann@example.com", PASSWORD, HERE)
    assert 1 <= int(blocked.value.headers["Retry-After"]) <= 5


async def test_a_database_that_does_not_answer_leaves_the_last_comparison(database: str) -> None:
    """The time goes on by what was known."""
    db = Database("auth", dsn=database)
    clock = SharedClock(db, WrongClock(1000.0))
    async with db:
        await clock.measure()

    with pytest.raises(Exception, match=r"."):
        await clock.measure()
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 5
