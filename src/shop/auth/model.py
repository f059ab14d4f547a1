"""Users, sessions and keys: the rules, without any I/O."""

import base64
import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from uuid import UUID

CUSTOMER = "customer"
ADMIN = "admin"
SCOPES = {
    CUSTOMER: ("orders:read", "orders:write", "notifications:read"),
    ADMIN: ("catalog:write", "inventory:write", "inventory:read", "analytics:read", "audit:read"),
}
"""What each role may do; a user with several roles may do all of it."""

EMAIL_LIMIT = 254
NAME_LIMIT = 100
PASSWORD_MIN = 8
PASSWORD_MAX = 128
REFRESH_TOKEN_BYTES = 32
MIN_GUESSES = 3e6
"""Guesses, as zxcvbn estimates them, that a password must withstand at least."""
GUESSED_PIECE = 32  # characters
CONTEXT_WORDS = ("backstay", "shop", "spring", "summer", "autumn", "winter")
MAX_WORDS = 20
REFRESH_GRACE = 10.0  # seconds

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_REPEATED = re.compile(r"(.+?)\1+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Flaw:
    """A broken rule: where in the request, and what is allowed."""

    pointer: str
    reason: str


@dataclass(frozen=True, slots=True)
class User:
    """A person with an account."""

    id: UUID
    email: str
    name: str
    roles: tuple[str, ...]
    created_at: datetime


def scopes_of(roles: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes of users with these roles, each once, in a stable order."""
    return tuple(dict.fromkeys(scope for role in sorted(roles, reverse=True) for scope in SCOPES.get(role, ())))


def email_key(email: str) -> str:
    """Return the address as it is compared: two spellings of one address have one key."""
    return email.strip().lower()


def email_flaws(email: str) -> list[Flaw]:
    """Return the flaws of an address."""
    local, _, domain = email.strip().rpartition("@")
    labels = domain.split(".")
    well_formed = _LOCAL.fullmatch(local) and len(local) <= 64 and len(labels) >= 2
    if well_formed and all(_LABEL.fullmatch(label) for label in labels) and len(email.strip()) <= EMAIL_LIMIT:
        return []
    return [Flaw("/email", f"must be an e-mail address like name@example.com with at most {EMAIL_LIMIT} characters")]


def name_flaws(name: str) -> list[Flaw]:
    """Return the flaws of a person's name."""
    stripped = name.strip()
    if 1 <= len(stripped) <= NAME_LIMIT and not any(unicodedata.category(char) == "Cc" for char in stripped):
        return []
    return [Flaw("/name", f"must have 1 to {NAME_LIMIT} characters, none of them a control character")]


def normalised(password: str) -> str:
    """Return the password as it is hashed: the same characters typed on another keyboard are the same password."""
    return unicodedata.normalize("NFC", password)


def password_flaws(password: str, email: str = "", *, pointer: str = "/password") -> list[Flaw]:
    """Return the flaws in the form of a new password; its composition is left to the user.

    Whether it is easily guessed is decided apart, see `guessable_pieces`.
    """
    password = normalised(password)
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        return [Flaw(pointer, f"must have {PASSWORD_MIN} to {PASSWORD_MAX} characters")]
    folded = password.casefold()
    if folded in (email_key(email), email_key(email).partition("@")[0]):
        return [Flaw(pointer, "must not be the e-mail address")]
    return []


def guessable_flaw(pointer: str) -> Flaw:
    """Return a password that is on the lists of guessers, or is made of what is."""
    return Flaw(pointer, "is among the passwords that are guessed first; choose another one")


def guessable_pieces(password: str) -> list[str]:
    """Return the parts of a password to estimate; it is easily guessed only if each of them is.

    A text that is repeated is worth as much as once. Estimates grow with the square of the length, hence the parts.
    """
    password = normalised(password)
    repeated = _REPEATED.fullmatch(password)
    text = repeated[1] if repeated else password
    return [text[start : start + GUESSED_PIECE] for start in range(0, len(text), GUESSED_PIECE)]


def words_of(email: str, name: str = "") -> list[str]:
    """Words that are guessed first for this account: the parts of its address and name, and what the shop is called."""
    words = re.split(r"[^a-z0-9]+", f"{email_key(email)} {name.casefold()}")
    return [*CONTEXT_WORDS, *(word for word in words if len(word) > 2)][:MAX_WORDS]


def new_refresh_token() -> str:
    """256 random bits that mean nothing."""
    return secrets.token_urlsafe(REFRESH_TOKEN_BYTES)


def new_successor_seed() -> bytes:
    """Random bytes that a successor is derived with."""
    return secrets.token_bytes(REFRESH_TOKEN_BYTES)


def successor_of(token: str, seed: bytes) -> str:
    """Derive the successor of a refresh token (HMAC-SHA-256).

    Whoever has the token alone can't derive it, for the seed is made at its first use and never leaves the database;
    whoever has the database alone can't, for the token isn't there. Together they give the same successor again.
    """
    derived = hmac.digest(seed, token.encode("utf-8", "surrogatepass"), "sha256")
    return base64.urlsafe_b64encode(derived).rstrip(b"=").decode()


def hash_of(token: str) -> bytes:
    """Return the stored form of a refresh token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Use(Enum):
    """The outcome of presenting a refresh token. The caller of a refused one doesn't learn which it was."""

    FIRST = "the token is traded for its successor"
    AGAIN = "the successor is handed out once more: the first answer may have been lost"
    ENDED = "the session has ended"
    REUSED = "the token was used before"
    EXPIRED = "the token has expired"

    @property
    def accepted(self) -> bool:
        """True if the caller gets tokens."""
        return self in (Use.FIRST, Use.AGAIN)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token as stored, with its session and user."""

    session_id: UUID
    user_id: UUID
    roles: tuple[str, ...]
    expires_at: datetime
    used_at: datetime | None
    session_ended_at: datetime | None
    session_expires_at: datetime
    successor_seed: bytes | None = None
    """None for a token that is unspent, or was spent by a release that derived no successors."""

    def use(self, now: datetime, grace: timedelta) -> Use:
        """Decide on its use; for `AGAIN` the successor must be unused, which the caller checks.

        A token that is used once more is one that two parties have, unless its first answer was lost: then the same
        client comes back soon, and hasn't used the successor.
        """
        if self.session_ended_at is not None:
            return Use.ENDED
        if self.used_at is not None:
            retried = self.successor_seed is not None and now - self.used_at <= grace
            return Use.AGAIN if retried and now < self.session_expires_at else Use.REUSED
        if now >= min(self.expires_at, self.session_expires_at):
            return Use.EXPIRED
        return Use.FIRST


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """From its `free`-th failure on a key is blocked, each time twice as long."""

    key: str
    free: int
    """At least 2."""
    drain: float
    """Seconds after which one failure is forgotten."""
    longest: float
    """Seconds that it is blocked at most."""
    forgiven: bool = True
    """Whether a successful login takes the failures back."""
    shared: bool = False
    """Whether many people share it: it doesn't stop an account where it has logged in before."""


ACCOUNT_AND_ADDRESS_FREE = 5
ADDRESS_FREE = 50
ACCOUNT_FREE = 100
FAILURES_KEPT = timedelta(days=1)
ADDRESSES_KEPT = timedelta(days=90)
ADDRESS_NOTED_EVERY = timedelta(days=1)


def failure_limits(key: str, address: str) -> list[FailureLimit]:
    """Return the limits that a failed login of that account from that address counts against.

    The narrow limit stops who guesses. The wide ones slow down who guesses at many accounts or from many addresses;
    they are wide and drain fast, for behind one address there may be many people, and nobody shall lock another out:
    who has logged in from there before is not stopped by them.
    """
    account = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return [
        FailureLimit(f"account-and-address:{account}:{address}", ACCOUNT_AND_ADDRESS_FREE, drain=3600.0, longest=900.0),
        FailureLimit(f"address:{address}", ADDRESS_FREE, drain=10.0, longest=30.0, forgiven=False, shared=True),
        FailureLimit(f"account:{account}", ACCOUNT_FREE, drain=60.0, longest=30.0, shared=True),
    ]


class KeyState(StrEnum):
    """The life of a signing key."""

    NEXT = "next"  # published, so that everybody knows it before it signs
    CURRENT = "current"  # next -> current: signs
    RETIRING = "retiring"  # current -> retiring: published until its last token is over


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A signing key as stored."""

    kid: str
    state: KeyState
    sealed: bytes
    created_at: datetime
    activated_at: datetime | None = None
    retires_at: datetime | None = None


def is_rotation_due(keys: Sequence[KeyRecord], now: datetime, *, age: float, published: float) -> bool:
    """Return whether the current key is `age` seconds old and the next one published for `published` seconds."""
    current = next((key for key in keys if key.state is KeyState.CURRENT), None)
    following = next((key for key in keys if key.state is KeyState.NEXT), None)
    if current is None or following is None:
        return False
    signing_for = now - (current.activated_at or current.created_at)
    return signing_for >= timedelta(seconds=age) and now - following.created_at >= timedelta(seconds=published)
