"""Users, sessions and keys: the rules, without any I/O."""

import hashlib
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
    ADMIN: ("catalog:write", "inventory:write", "inventory:read", "analytics:read"),
}
"""What each role may do; a user with several roles may do all of it."""

EMAIL_LIMIT = 254
NAME_LIMIT = 100
PASSWORD_MIN = 8
PASSWORD_MAX = 128
REFRESH_TOKEN_BYTES = 32

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_COMMON_TEXT = (
    "password password1 password12 password123 passw0rd p@ssw0rd p@ssword 12345678 123456789 1234567890 87654321 "
    "11111111 00000000 88888888 12341234 11223344 qwertyui qwertyuiop qwerty12 qwerty123 1q2w3e4r 1q2w3e4r5t "
    "1qaz2wsx zaq12wsx qazwsxedc asdfghjk asdfghjkl zxcvbnm1 iloveyou iloveyou1 sunshine princess football baseball "
    "superman trustno1 welcome1 welcome123 letmein1 letmein123 abcd1234 abc12345 a1b2c3d4 aa123456 changeme "
    "changeme1 starwars whatever computer internet michelle jennifer dragon123 monkey123 master123 shadow123 "
    "hello123 charlie1 liverpool chelsea1 arsenal1 password! secret123 testtest test1234 admin123 administrator "
    "default1 samsung1 pokemon1 mustang1 cheese123 freedom1 passpass passport qwer1234 asdf1234 zxcv1234"
)
_COMMON = frozenset(_COMMON_TEXT.split())


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
    """What users of these roles may do, each once, in a stable order."""
    return tuple(dict.fromkeys(scope for role in sorted(roles, reverse=True) for scope in SCOPES.get(role, ())))


def email_key(email: str) -> str:
    """The address as it is compared: two spellings of one address have one key."""
    return email.strip().lower()


def email_flaws(email: str) -> list[Flaw]:
    """What is wrong with an address."""
    local, _, domain = email.strip().rpartition("@")
    labels = domain.split(".")
    well_formed = _LOCAL.fullmatch(local) and len(local) <= 64 and len(labels) >= 2
    if well_formed and all(_LABEL.fullmatch(label) for label in labels) and len(email.strip()) <= EMAIL_LIMIT:
        return []
    return [Flaw("/email", f"must be an e-mail address like name@example.com with at most {EMAIL_LIMIT} characters")]


def name_flaws(name: str) -> list[Flaw]:
    """What is wrong with a person's name."""
    stripped = name.strip()
    if 1 <= len(stripped) <= NAME_LIMIT and not any(unicodedata.category(char) == "Cc" for char in stripped):
        return []
    return [Flaw("/name", f"must have 1 to {NAME_LIMIT} characters, none of them a control character")]


def normalised(password: str) -> str:
    """The password as it is hashed: the same characters typed on another keyboard are the same password."""
    return unicodedata.normalize("NFC", password)


def password_flaws(password: str, email: str = "", *, pointer: str = "/password") -> list[Flaw]:
    """What is wrong with a new password; how it is composed is the user's own business."""
    password = normalised(password)
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        return [Flaw(pointer, f"must have {PASSWORD_MIN} to {PASSWORD_MAX} characters")]
    folded = password.casefold()
    if folded in _COMMON or len(set(folded)) == 1:
        return [Flaw(pointer, "is one of the most common passwords; choose another one")]
    if folded in (email_key(email), email_key(email).partition("@")[0]):
        return [Flaw(pointer, "must not be the e-mail address")]
    return []


def new_refresh_token() -> str:
    """256 random bits that mean nothing."""
    return secrets.token_urlsafe(REFRESH_TOKEN_BYTES)


def hash_of(token: str) -> bytes:
    """What is stored of a refresh token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Refusal(Enum):
    """Why a refresh token is not accepted; callers are told no difference."""

    ENDED = "the session has ended"
    REUSED = "the token was used before"
    EXPIRED = "the token has expired"


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

    def refusal(self, now: datetime) -> Refusal | None:
        """Why it may not be used, or None. A spent one of a living session means that somebody stole one."""
        if self.session_ended_at is not None:
            return Refusal.ENDED
        if self.used_at is not None:
            return Refusal.REUSED
        if now >= min(self.expires_at, self.session_expires_at):
            return Refusal.EXPIRED
        return None


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


ACCOUNT_AND_ADDRESS_FREE = 5
ADDRESS_FREE = 50
ACCOUNT_FREE = 100
FAILURES_KEPT = timedelta(days=1)


def failure_limits(key: str, address: str) -> list[FailureLimit]:
    """What a failed login of that account from that address counts against.

    The narrow limit stops who guesses. The wide ones slow down who guesses at many accounts or from many addresses;
    they are wide and drain fast, for behind one address there may be many people, and nobody shall lock another out.
    """
    account = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return [
        FailureLimit(f"account-and-address:{account}:{address}", ACCOUNT_AND_ADDRESS_FREE, drain=3600.0, longest=900.0),
        FailureLimit(f"address:{address}", ADDRESS_FREE, drain=10.0, longest=30.0, forgiven=False),
        FailureLimit(f"account:{account}", ACCOUNT_FREE, drain=60.0, longest=30.0),
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
    """Whether the current key is `age` seconds old and the next one has been published for `published` seconds."""
    current = next((key for key in keys if key.state is KeyState.CURRENT), None)
    following = next((key for key in keys if key.state is KeyState.NEXT), None)
    if current is None or following is None:
        return False
    signing_for = now - (current.activated_at or current.created_at)
    return signing_for >= timedelta(seconds=age) and now - following.created_at >= timedelta(seconds=published)
