"""The signing keys: one signs, the next one is published beforehand, the last one until its tokens are over.

All instances share them by the database. Each reads them every few seconds; since a key is published long before it
signs and long after, it doesn't matter that some learn of a rotation later than others.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from joserfc.jwk import ECKey

from backstay.auth import KeysUnavailable, SigningKey, StaticKeys, jwks
from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction
from backstay.metrics import Count
from backstay.telemetry.logs import get_logger
from shop.auth import store
from shop.auth.model import KeyRecord, KeyState, is_rotation_due
from shop.auth.providers import KeySafe

REFRESH = 5.0  # seconds between two looks at the database
LEEWAY = 60.0  # seconds that clocks may differ

log = get_logger()


@dataclass(frozen=True, slots=True)
class KeyRingStatistics:
    """The keys of now."""

    published: int
    current_age: float
    """Seconds that the current key has been signing."""
    changes: Count
    """Times that the published keys changed since the start."""


class KeyRing:
    """The keys of now; also the `KeySource` by which auth checks its own tokens."""

    def __init__(
        self,
        db: Database,
        safe: KeySafe,
        *,
        rotation: float,
        token_life: float,
        max_age: float,
        clock: Clock = SYSTEM,
    ) -> None:
        self._db = db
        self._safe = safe
        self._rotation = rotation
        self._token_life = token_life
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._records: list[KeyRecord] = []
        self._current: SigningKey | None = None
        self._published: StaticKeys | None = None
        self.max_age = max_age
        """Seconds that others may keep the key set."""
        self.document = b""
        """The JWKS document."""
        self.version = 0

    async def __aenter__(self) -> Self:
        await self._make_missing()
        await self.refresh()
        self._task = asyncio.create_task(self._keep_fresh())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        if self._current is None:
            raise KeysUnavailable("the signing keys were not read yet")
        return self._current

    def statistics(self) -> KeyRingStatistics:
        """Return a snapshot."""
        current = next((key for key in self._records if key.state is KeyState.CURRENT), None)
        since = current.activated_at if current else None
        age = (self._clock.now() - since).total_seconds() if since else 0.0
        return KeyRingStatistics(len(self._records), age, self.version)

    def find(self, kid: str) -> ECKey | None:
        """Return the published key of that id."""
        if self._published is None:
            raise KeysUnavailable("the signing keys were not read yet")
        return self._published.find(kid)

    async def refresh(self) -> None:
        """Read the keys from the database."""
        records = await store.keys(self._db)
        if records != self._records:
            self._use(records)

    async def rotate_if_due(self) -> bool:
        """Let the next key sign when the current one is old enough, and remove retired keys; True if it changed."""
        now = self._clock.now()
        async with self._db.transaction() as tx:
            await store.delete_retired_keys(tx, now)
            records = await store.lock_keys(tx)
            due = is_rotation_due(records, now, age=self._rotation, published=2 * self.max_age)
            if due:
                await self._rotate(tx, records)
        await self.refresh()
        return due

    async def _rotate(self, tx: Transaction, records: list[KeyRecord]) -> None:
        now = self._clock.now()
        by_state = {record.state: record.kid for record in records}
        retires_at = now + timedelta(seconds=self._token_life + self.max_age + LEEWAY)
        await store.hand_over(tx, by_state[KeyState.CURRENT], by_state[KeyState.NEXT], now, retires_at)
        await store.insert_key(tx, self._new(KeyState.NEXT))
        log.info("keys.rotated", signs=by_state[KeyState.NEXT], retires=by_state[KeyState.CURRENT])

    async def _make_missing(self) -> None:
        async with self._db.transaction() as tx:
            there = {record.state for record in await store.lock_keys(tx)}
            for state in (KeyState.CURRENT, KeyState.NEXT):
                if state not in there:
                    await store.insert_key(tx, self._new(state))

    def _new(self, state: KeyState) -> KeyRecord:
        key, now = SigningKey.generate(), self._clock.now()
        activated_at = now if state is KeyState.CURRENT else None
        return KeyRecord(key.kid, state, self._safe.seal(key.kid, key.pem()), now, activated_at)

    def _use(self, records: list[KeyRecord]) -> None:
        opened = {record.state: self._open(record) for record in records if record.state is not KeyState.RETIRING}
        retiring = [self._open(record) for record in records if record.state is KeyState.RETIRING]
        self._current = opened[KeyState.CURRENT]
        self.document = jwks([*opened.values(), *retiring])
        self._published = StaticKeys(self.document)
        self._records = records
        self.version += 1

    def _open(self, record: KeyRecord) -> SigningKey:
        return SigningKey.from_pem(self._safe.open(record.kid, record.sealed))

    async def _keep_fresh(self) -> None:
        while True:
            await self._clock.sleep(REFRESH)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - the last keys stay in use until the database answers again
                log.warning("keys.refresh-failed", error=f"{type(error).__name__}: {error}")
