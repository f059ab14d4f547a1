"""Credentials of the registry: HTTP Basic (RFC 7617), from the URL as Eureka's own clients send them.

A credential is bound to application names. With it an instance of these applications is registered, renewed, cancelled,
or given another status; of any other application the request is refused (403). So is a registration under a virtual
address (`vipAddress`, `secureVipAddress`) of another application, since Spring's clients find instances by it. Two
passwords of a user are valid at the same time, so that they are changed without a gap: add the new one, restart the
clients, remove the old one.

Only digests are kept. A header that was verified once is recognised by one look into a dictionary, so a heartbeat costs
no digest.
"""

import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from backstay.discovery.registration import Registration
from backstay.errors import ConfigError

MIN_PASSWORD = 12  # characters
PASSWORDS = 2  # of one user at the same time
ANY_APP = "*"
CHALLENGE = ("www-authenticate", 'Basic realm="registry", charset="UTF-8"')

_HASHED = re.compile(r"sha256:[0-9a-f]{64}")
_VISIBLE = re.compile(r"[!-~]+")
_VARIANTS = 4  # spellings of one verified header that are remembered
_NO_DIGEST = bytes(32)


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    user: Annotated[str, Meta(pattern=r"^[!-9;-~]{1,64}$")]
    passwords: Annotated[list[str], Meta(min_length=1, max_length=PASSWORDS)]
    apps: list[Annotated[str, Meta(min_length=1, max_length=255)]]
    vips: list[Annotated[str, Meta(min_length=1, max_length=255)]] = []


@dataclass(frozen=True, slots=True)
class Credential:
    """One user of the registry."""

    user: str
    digests: tuple[bytes, ...] = field(repr=False)
    """SHA-256 of each valid password."""
    apps: frozenset[str]
    """Applications in upper case that it may change; `*` means all of them, and none at all that it only reads."""
    vips: frozenset[str] = frozenset()
    """Virtual addresses in upper case that its instances may have, besides the names of its applications."""

    def may_change(self, app: str) -> bool:
        """Return whether the credential is bound to that application."""
        return app.upper() in self.apps or ANY_APP in self.apps

    def foreign_address(self, registration: Registration) -> str | None:
        """Return a requested virtual address that the credential doesn't allow; None if there is none.

        Java's clients look addresses up in upper case, and a comma separates several. The instance's own `host:port`
        is free: Netflix's client names it where none is configured (`AbstractInstanceConfig.getVirtualHostName`).
        """
        own = {f"{registration.host}:{port}".upper() for port in (registration.port, registration.secure_port)}
        asked = (registration.details.get(each, "") for each in ("vipAddress", "secureVipAddress"))
        names = (name for each in asked if each for name in each.split(","))
        allowed = self.vips | own
        return next((name for name in names if name.upper() not in allowed and not self.may_change(name)), None)


class Credentials:
    """The users of one registry.

    Args:
        users: each with at least one password.
        private_reads: lists of instances and the page need a credential, too (of any application).
    """

    def __init__(self, users: Iterable[Credential], *, private_reads: bool = False) -> None:
        self._users = {each.user: each for each in users}
        self._verified: dict[str, Credential] = {}
        self._capacity = _VARIANTS * PASSWORDS * len(self._users)
        self.private_reads = private_reads

    @classmethod
    def read(cls, text: str, *, private_reads: bool = False) -> Self:
        """Return the users in a JSON array: `[{"user": "orders", "passwords": ["…"], "apps": ["orders"]}]`.

        With `"vips": ["pay.example"]` its instances may have these virtual addresses, too.
        A password is the text itself (at least `MIN_PASSWORD` visible ASCII characters) or `sha256:` and the digest of
        it in hexadecimal, for passwords of 128 random bits and more.

        Raises:
            ConfigError: lists every mistake; no password is shown.
        """
        try:
            entries = msgspec.json.decode(text.encode(), type=list[_Entry])
        except msgspec.DecodeError as error:
            raise ConfigError(f"registry credentials: {error}") from None
        problems = [] if entries else ["the list is empty: nobody could register"]
        for number, entry in enumerate(entries):
            if entry.user in {each.user for each in entries[:number]}:
                problems.append(f"user {entry.user!r} is there twice; give both passwords in one entry")
            if not all(map(_usable, entry.passwords)):
                problems.append(
                    f"each password of {entry.user!r} must have at least {MIN_PASSWORD} visible ASCII characters, "
                    "or be sha256: and 64 hexadecimal digits"
                )
        if problems:
            raise ConfigError([f"registry credentials: {each}" for each in problems])
        return cls((_credential(entry) for entry in entries), private_reads=private_reads)

    def __repr__(self) -> str:
        return f"Credentials({sorted(self._users)!r}, private_reads={self.private_reads})"

    def identify(self, authorization: str | None) -> Credential | None:
        """Return the user of an Authorization header; None if there is none or its password is wrong."""
        if authorization is None:
            return None
        known = self._verified.get(authorization)
        if known is not None:
            return known
        found = self._verify(authorization)
        if found is not None:
            if len(self._verified) >= self._capacity:
                self._verified.clear()
            self._verified[authorization] = found
        return found

    def _verify(self, authorization: str) -> Credential | None:
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, colon, password = binascii.a2b_base64(encoded.strip(), strict_mode=True).partition(b":")
        except ValueError:
            return None
        credential = self._users.get(user.decode("latin-1"))
        given = hashlib.sha256(password).digest()
        digests = (_NO_DIGEST,) if credential is None else credential.digests
        matches = [hmac.compare_digest(given, digest) for digest in digests]
        return credential if colon and any(matches) else None


def check_exposure(host: str, credentials: Credentials | None, *, open: bool = False) -> None:  # noqa: A002 - as said
    """Raise ConfigError for a registry without credentials that others than this machine's programs could reach."""
    if credentials is None and not open and not is_loopback(host):
        raise ConfigError(
            f"a registry without credentials listens on a loopback address only, not on {host!r}: whoever reaches it "
            "could register as any service. Give it credentials, or let everybody in with --open (OPEN_REGISTRY=true)"
        )


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine can connect to that address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _usable(password: str) -> bool:
    if password.startswith("sha256:"):
        return _HASHED.fullmatch(password) is not None
    return len(password) >= MIN_PASSWORD and _VISIBLE.fullmatch(password) is not None


def _credential(entry: _Entry) -> Credential:
    return Credential(entry.user, tuple(map(_digest, entry.passwords)), _upper(entry.apps), _upper(entry.vips))


def _upper(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.upper() for name in names)


def _digest(password: str) -> bytes:
    if password.startswith("sha256:"):
        return bytes.fromhex(password.removeprefix("sha256:"))
    return hashlib.sha256(password.encode()).digest()
