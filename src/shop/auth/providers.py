"""Cryptography that is somebody else's: Argon2id for passwords, AES-GCM for keys at rest."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backstay.errors import BackstayError, ConfigError
from shop.auth.model import normalised

T = TypeVar("T")

_NONCE = 12  # bytes
_PLAIN = b"\x00"
_SEALED = b"\x01"


class TooBusy(BackstayError):
    """More passwords wait to be hashed than may."""


@dataclass(frozen=True, slots=True)
class PasswordStatistics:
    """State, and counts since the start."""

    busy: int
    """Being hashed, or waiting for it."""
    hashed: int
    refused: int
    """Because too many were waiting."""


class Passwords:
    """Argon2id on a few threads of its own: the event loop goes on, and the memory has a bound.

    Beyond `threads` running and `waiting` queued ones `TooBusy` is raised.
    """

    def __init__(
        self,
        *,
        memory_kib: int = 19_456,
        time_cost: int = 2,
        parallelism: int = 1,
        threads: int = 2,
        waiting: int = 64,
    ) -> None:
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        self._limit = threads + waiting
        self._busy = self._hashed = self._refused = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._nobody = self._hasher.hash(os.urandom(16).hex())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The hash to store."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored one; without a stored one it takes just as long to say no."""
        matches = await self._run(lambda: self._matches(password, stored or self._nobody))
        return matches and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than those of now."""
        return self._hasher.check_needs_rehash(stored)

    def statistics(self) -> PasswordStatistics:
        """A snapshot of state and counters."""
        return PasswordStatistics(self._busy, self._hashed, self._refused)

    def _matches(self, password: str, stored: str) -> bool:
        try:
            return self._hasher.verify(stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._busy >= self._limit:
            self._refused += 1
            raise TooBusy(f"{self._busy} passwords are being checked")
        self._busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._done)
        return await future

    def _done(self, _: object) -> None:
        self._busy -= 1
        self._hashed += 1


class KeySafe:
    """Encrypts private keys for the database; without a secret it stores them as they are."""

    def __init__(self, secret: str) -> None:
        self._cipher = AESGCM(_derived(secret)) if secret else None

    def seal(self, kid: str, private: bytes) -> bytes:
        """The bytes to store."""
        if self._cipher is None:
            return _PLAIN + private
        nonce = os.urandom(_NONCE)
        return _SEALED + nonce + self._cipher.encrypt(nonce, private, kid.encode())

    def open(self, kid: str, sealed: bytes) -> bytes:
        """The private key; raises `ConfigError` if the secret is not the one it was sealed with."""
        if sealed[:1] == _PLAIN:
            return sealed[1:]
        if self._cipher is None:
            raise ConfigError("KEY_ENCRYPTION_SECRET is not set, but the stored signing keys are encrypted")
        try:
            return self._cipher.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], kid.encode())
        except InvalidTag:
            raise ConfigError(
                "KEY_ENCRYPTION_SECRET=***: is not the one the stored signing keys were sealed with"
            ) from None


def _derived(secret: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"auth.signing-keys").derive(secret.encode())


def _bytes(password: str) -> bytes:
    return normalised(password).encode("utf-8", "surrogatepass")
