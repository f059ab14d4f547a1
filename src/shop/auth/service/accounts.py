"""Accounts and sessions: who is who, and until when.

Nothing here tells a stranger whether an address is known: registering answers the same and costs the same either way,
and so does a failed login.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

from backstay import faults
from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction
from backstay.errors import ConfigError
from backstay.ids import uuid7
from backstay.metrics import Count
from backstay.outbox import Outbox
from backstay.resilience import STOP_HEADER
from backstay.service import (
    Conflict,
    FieldError,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from backstay.telemetry.logs import get_logger
from shop.auth import events, store
from shop.auth.model import (
    ADDRESS_NOTED_EVERY,
    ADMIN,
    CUSTOMER,
    REFRESH_GRACE,
    FailureLimit,
    Flaw,
    RefreshToken,
    Use,
    User,
    email_flaws,
    email_key,
    failure_limits,
    guessable_flaw,
    hash_of,
    name_flaws,
    new_refresh_token,
    new_successor_seed,
    password_flaws,
    successor_of,
    words_of,
)
from shop.auth.providers import Passwords, TooBusy
from shop.auth.service.tokens import IssuedToken, Tokens

REPEAT_PAUSE = timedelta(hours=1)
"""The owner of an address is told at most this often that somebody registered it again."""
KEPT_AFTER_END = timedelta(days=1)

log = get_logger()


@dataclass(frozen=True, slots=True)
class Grant:
    """The result of a login or a refresh."""

    access: IssuedToken
    refresh_token: str


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The admin that is created if the address has no account yet."""

    email: str
    password: str

    def __repr__(self) -> str:
        return f"FirstAdmin(email={self.email!r}, password='***')"


@dataclass(frozen=True, slots=True)
class AccountStatistics:
    """Counts since the start."""

    registrations: Count
    repeated_registrations: Count
    logins: Count
    failed_logins: Count
    throttled_logins: Count
    refreshes: Count
    repeated_refreshes: Count
    reused_refresh_tokens: Count
    revoked_sessions: Count


class Accounts:
    """The use cases of users; entering makes the first admin."""

    def __init__(
        self,
        db: Database,
        outbox: Outbox,
        passwords: Passwords,
        tokens: Tokens,
        *,
        refresh_life: float,
        session_life: float,
        registration_beat: float = 0.0,
        refresh_grace: float = REFRESH_GRACE,
        first_admin: FirstAdmin | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._db = db
        self._outbox = outbox
        self._passwords = passwords
        self._tokens = tokens
        self._refresh_life = timedelta(seconds=refresh_life)
        self._session_life = timedelta(seconds=session_life)
        self._refresh_grace = timedelta(seconds=refresh_grace)
        self._registration_beat = registration_beat
        self._first_admin = first_admin
        self._clock = clock
        self._counts: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        if self._first_admin is not None:
            await self._make_admin(self._first_admin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def register(self, email: str, password: str, name: str, address: str = "") -> None:
        """Make an account, or inform the owner of a known address. Raises Unprocessable with every broken rule.

        The owner gets no mail if the password is his: then the registration repeats one whose answer was lost. A new
        password is hashed and a known one compared, which costs the same.

        It ends a whole number of beats after its begin: a new account takes longer to write than a known one to
        find, and nobody shall see that.
        """
        began = self._clock.monotonic()
        flaws = [*email_flaws(email), *await self._password_flaws(password, email, name), *name_flaws(name)]
        _refuse(flaws)
        key, user = email_key(email), User(uuid7(), email.strip(), name.strip(), (CUSTOMER,), self._clock.now())
        known = await store.find_hash(self._db, key)
        saved = known is None and await self._create(user, await self._hash(password), address)
        if not saved:
            known = known or await store.find_hash(self._db, key)
            await self._repeat(user, is_owner=await self._verify(password, known))
        self._counts["registrations" if saved else "repeated_registrations"] += 1
        await faults.point("auth.register.after-commit")
        if beat := self._registration_beat:
            await self._clock.sleep(beat - (self._clock.monotonic() - began) % beat)

    async def login(self, email: str, password: str, address: str) -> Grant:
        """Open a session. Raises Unauthorized, TooManyRequests after too many failures, Unavailable when too busy."""
        self._check_room()  # nothing is looked up for those who can't be served
        key = email_key(email)
        limits = failure_limits(key, address)
        login = await store.find_login(self._db, key, limits, address)
        self._check_block(login.blocked_until)
        matches = await self._verify(password, login.password.hash if login.password else None)
        if login.user is None or login.password is None or not matches:
            await self._note_failure(limits)
            raise _unknown_login()
        grant = await self._open_session(login.user, login.password)
        self._counts["logins"] += 1
        await self._note_address(login, address)
        if login.has_failures:
            await store.forget_failures(self._db, [limit.key for limit in limits if limit.forgiven])
        if self._passwords.is_outdated(login.password.hash):
            await store.replace_hash(self._db, login.user.id, login.password.hash, await self._hash(password))
        return grant

    async def refresh(self, refresh_token: str) -> Grant:
        """Trade a refresh token for a new pair of tokens. Raises Unauthorized.

        A repeat within the grace, before the successor was used, gets the same successor again: its first answer may
        have been lost. Any other second use ends the whole session.
        """
        now = self._clock.now()
        async with self._db.transaction() as tx:
            token = await store.lock_refresh_token(tx, hash_of(refresh_token))
            use, successor = Use.ENDED, ""
            if token is not None:
                use, successor = await self._use(tx, token, refresh_token, now)
            if token is not None and use is Use.REUSED:
                await self._end(tx, token.session_id, "refresh-token-reused", now)
        await faults.point("auth.refresh.after-commit")
        if token is None or not use.accepted:
            log.info("refresh.refused", reason=use.value, known=token is not None)
            self._counts["reused_refresh_tokens"] += use is Use.REUSED
            raise Unauthorized("the refresh token is not valid; log in again", slug="invalid-refresh-token")
        self._counts["refreshes" if use is Use.FIRST else "repeated_refreshes"] += 1
        return Grant(self._tokens.for_session(token.user_id, token.roles, token.session_id), successor)

    async def _use(self, tx: Transaction, token: RefreshToken, value: str, now: datetime) -> tuple[Use, str]:
        """Decide on the use of a locked token, and carry it out; with the successor, if there is one."""
        use = token.use(now, self._refresh_grace)
        if use is Use.AGAIN:
            successor = successor_of(value, token.successor_seed or b"")
            return (use, successor) if await store.is_unused(tx, hash_of(successor)) else (Use.REUSED, "")
        if use is not Use.FIRST:
            return use, ""
        seed, until = new_successor_seed(), min(now + self._refresh_life, token.session_expires_at)
        successor = successor_of(value, seed)
        await store.rotate_refresh_token(
            tx, hash_of(value), hash_of(successor), token.session_id, at=now, until=until, seed=seed
        )
        return use, successor

    async def logout(self, session_id: UUID) -> None:
        """End a session; nothing if it is over already."""
        async with self._db.transaction() as tx:
            await self._end(tx, session_id, "logout", self._clock.now())

    async def me(self, user_id: UUID) -> User:
        """Return the user himself. Raises NotFound."""
        user = await store.find_user(self._db, user_id)
        if user is None:
            raise NotFound("this account no longer exists")
        return user

    async def change_password(self, user_id: UUID, current: str, new: str, address: str) -> None:
        """Set a new password and end all sessions. Raises Unprocessable, TooManyRequests, Conflict."""
        known = await store.find_password(self._db, user_id)
        if known is None:
            raise NotFound("this account no longer exists")
        key, before = known
        limits = failure_limits(key, address)
        self._check_block(await store.blocked_until(self._db, [limit for limit in limits if not limit.shared]))
        _refuse(await self._password_flaws(new, key, pointer="/new_password"))
        if not await self._verify(current, before.hash):
            await self._note_failure(limits)
            _refuse([Flaw("/current_password", "is wrong")])
        await self._set_password(user_id, before, await self._hash(new))

    def statistics(self) -> AccountStatistics:
        """Return a snapshot of the counters."""
        names = [field.name for field in fields(AccountStatistics)]
        return AccountStatistics(**{name: self._counts[name] for name in names})

    async def prune(self) -> None:
        """Remove what is over."""
        now = self._clock.now()
        await store.prune(self._db, now, now - KEPT_AFTER_END)

    async def _password_flaws(
        self, password: str, email: str, name: str = "", *, pointer: str = "/password"
    ) -> list[Flaw]:
        if flaws := password_flaws(password, email, pointer=pointer):
            return flaws
        try:
            guessable = await self._passwords.is_guessable(password, words_of(email, name))
        except TooBusy as error:
            raise _too_busy(error) from error
        return [guessable_flaw(pointer)] if guessable else []

    async def _create(self, user: User, password_hash: str, address: str) -> bool:
        """Save a new user; False if the address was taken meanwhile."""
        await faults.point("auth.register.before-commit")
        async with self._db.transaction() as tx:
            saved = await self._save(tx, user, password_hash)
            if saved and address:
                await store.note_address(tx, user.id, address, user.created_at)
        return saved

    async def _save(self, tx: Transaction, user: User, password_hash: str) -> bool:
        saved = await store.insert_user(tx, user, email_key(user.email), password_hash)
        if saved:
            await self._outbox.append(tx, events.registered(user))
        return saved

    async def _repeat(self, user: User, *, is_owner: bool) -> None:
        """Inform the owner of an address that it was registered again, unless it was he who did so."""
        now = user.created_at
        await faults.point("auth.register.before-commit")
        async with self._db.transaction() as tx:
            if is_owner:
                return
            owner = await store.tell_repeat(tx, email_key(user.email), now, now - REPEAT_PAUSE)
            if owner is not None:
                await self._outbox.append(tx, events.repeated(owner, now))

    async def _note_address(self, login: store.Login, address: str) -> None:
        """Remember, once a day, that this user logs in from this address."""
        now = self._clock.now()
        if login.user is not None and (login.familiar_at is None or now - login.familiar_at >= ADDRESS_NOTED_EVERY):
            await store.note_address(self._db, login.user.id, address, now)

    async def _make_admin(self, admin: FirstAdmin) -> None:
        if flaws := [*email_flaws(admin.email), *await self._password_flaws(admin.password, admin.email)]:
            raise ConfigError([f"ADMIN_{flaw.pointer[1:].upper()} {flaw.reason}" for flaw in flaws])
        if await store.knows_email(self._db, email_key(admin.email)):
            return
        password_hash = await self._hash(admin.password)
        user = User(uuid7(), admin.email.strip(), "Administrator", (CUSTOMER, ADMIN), self._clock.now())
        async with self._db.transaction() as tx:
            if await self._save(tx, user, password_hash):
                log.info("admin.made", user_id=str(user.id))

    async def _open_session(self, user: User, password: store.StoredPassword) -> Grant:
        session_id, token, now = uuid7(), new_refresh_token(), self._clock.now()
        opened = await store.open_session(
            self._db,
            session_id,
            user.id,
            password,
            at=now,
            until=now + self._session_life,
            token_hash=hash_of(token),
            token_until=now + min(self._refresh_life, self._session_life),
        )
        if not opened:
            raise _unknown_login()
        return Grant(self._tokens.for_session(user.id, user.roles, session_id), token)

    async def _set_password(self, user_id: UUID, before: store.StoredPassword, after: str) -> None:
        now = self._clock.now()
        async with self._db.transaction() as tx:
            if not await store.change_password(tx, user_id, before, after):
                raise Conflict("password-changed", "The password was changed by somebody else at the same moment.")
            ended = await store.end_sessions_of(tx, user_id, now, "password-changed")
            life = self._tokens.access_life
            revoked = [events.revoked(user_id, sid, "password-changed", now, life) for sid in ended]
            await self._outbox.append(tx, *revoked)
        self._counts["revoked_sessions"] += len(revoked)

    async def _end(self, tx: Transaction, session_id: UUID, reason: str, now: datetime) -> None:
        user_id = await store.end_session(tx, session_id, now, reason)
        if user_id is not None:
            revoked = events.revoked(user_id, session_id, reason, now, self._tokens.access_life)
            await self._outbox.append(tx, revoked)
            self._counts["revoked_sessions"] += 1

    async def _note_failure(self, limits: Sequence[FailureLimit]) -> None:
        self._counts["failed_logins"] += 1
        await store.note_failure(self._db, limits, self._clock.now())

    async def _hash(self, password: str) -> str:
        try:
            return await self._passwords.hash(password)
        except TooBusy as error:
            raise _too_busy(error) from error

    async def _verify(self, password: str, stored: str | None) -> bool:
        try:
            return await self._passwords.verify(password, stored)
        except TooBusy as error:
            raise _too_busy(error) from error

    def _check_room(self) -> None:
        try:
            self._passwords.check_room()
        except TooBusy as error:
            raise _too_busy(error) from error

    def _check_block(self, until: datetime | None) -> None:
        wait = (until - self._clock.now()).total_seconds() if until is not None else 0.0
        if wait > 0:
            self._counts["throttled_logins"] += 1
            raise TooManyRequests("too many failed logins; wait before the next one", retry_after=wait)


def _too_busy(error: TooBusy) -> Unavailable:
    return Unavailable(str(error), slug="too-busy", retry_after=error.retry_after, headers={STOP_HEADER: "1"})


def _unknown_login() -> Unauthorized:
    return Unauthorized("e-mail address or password is wrong", slug="wrong-credentials")


def _refuse(flaws: Sequence[Flaw]) -> None:
    if flaws:
        raise Unprocessable(errors=[FieldError(flaw.pointer, flaw.reason) for flaw in flaws])
