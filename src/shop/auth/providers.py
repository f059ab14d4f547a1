"""Cryptography of libraries: Argon2id and zxcvbn for passwords, AES-GCM for keys at rest."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, thread_time
from types import TracebackType
from typing import Any, Self, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backstay.errors import BackstayError, ConfigError
from backstay.metrics import Count
from shop.auth.model import MIN_GUESSES, guessable_pieces, normalised

T = TypeVar("T")

_NONCE = 12  # bytes
_PLAIN = b"\x00"
_SEALED = b"\x01"


FIRST_COST = 0.05
"""Seconds of CPU that a password is expected to take before one was measured."""
COST_WEIGHT = 0.1
"""Weight of the last password in the average of what they take."""
LONGEST_WAIT = 60.0
"""Seconds that a refused caller is asked to wait at most."""


class TooBusy(BackstayError):
    """More passwords wait to be hashed than may; there is a place in `retry_after` seconds."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Places:
    """Places in the queue of passwords, promised to those it had no room for: one each, in their order.

    If all were told the same second, they would come back at the same moment and find the same queue. Beyond the
    longest wait the places of its second half are given once more.
    """

    def __init__(self) -> None:
        self._last = 0.0

    def next(self, now: float, *, queued: int, each: float) -> float:
        """Seconds until the next place is free, while `queued` passwords are before it and each takes `each`."""
        self._last = max(self._last, now + queued * each) + each
        if self._last > now + LONGEST_WAIT:
            self._last = now + LONGEST_WAIT / 2
        return self._last - now


@dataclass(frozen=True, slots=True)
class PasswordStatistics:
    """State, and counts since the start."""

    busy: int
    """Being hashed, or waiting for it."""
    hashed: Count
    refused: Count
    """Because too many were waiting."""
    cost: float
    """Seconds of CPU that one takes, on average."""


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
        self._threads = threads
        self._cost = FIRST_COST
        self._places = Places()
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
        """Return the hash to store."""
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether the password is the stored one; without a stored one it takes just as long to refuse."""
        matches = await self._run(lambda: self._matches(password, stored or self._nobody))
        return matches and stored is not None

    async def is_guessable(self, password: str, words: Sequence[str]) -> bool:
        """Return whether a guesser would soon try this password; `words` are guessed first (zxcvbn).

        It runs on the same threads as the hashes, for an estimate takes up to some ten milliseconds.
        """
        return await self._run(lambda: _is_guessable(password, words), self._estimated)

    def check_room(self) -> None:
        """Raise TooBusy if another password would be refused now: call it before anything else is done for a caller."""
        if self._busy >= self._limit:
            self._refused += 1
            wait = self._places.next(monotonic(), queued=self._busy, each=self._cost / self._threads)
            raise TooBusy(f"{self._busy} passwords are being checked", wait)

    def is_outdated(self, stored: str) -> bool:
        """Return whether the hash was made with other parameters than those of now."""
        return self._hasher.check_needs_rehash(stored)

    def statistics(self) -> PasswordStatistics:
        """Return a snapshot of state and counters."""
        return PasswordStatistics(self._busy, self._hashed, self._refused, self._cost)

    def _matches(self, password: str, stored: str) -> bool:
        try:
            return self._hasher.verify(stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T], done: Callable[[Any], None] | None = None) -> T:
        self.check_room()
        self._busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, _timed, work)
        future.add_done_callback(done or self._done)
        return (await future)[0]

    def _done(self, future: asyncio.Future[tuple[Any, float]]) -> None:
        self._busy -= 1
        if not future.cancelled() and future.exception() is None:
            self._hashed += 1
            self._cost += COST_WEIGHT * (future.result()[1] - self._cost)

    def _estimated(self, _: object) -> None:
        self._busy -= 1


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result, and the CPU that it took.

    Not the time that went by: others who keep the machine busy make that many times as long, and who is told to wait by
    it comes back when the threads have long been idle. Who comes too early costs little and is told the next place.
    """
    began = thread_time()
    return work(), thread_time() - began


def _is_guessable(password: str, words: Sequence[str]) -> bool:
    from zxcvbn import zxcvbn  # 14 MB of words, for the processes that judge passwords only

    return all(zxcvbn(piece, list(words))["guesses"] < MIN_GUESSES for piece in guessable_pieces(password))


class KeySafe:
    """Encrypts private keys for the database; without a secret it stores them as they are."""

    def __init__(self, secret: str) -> None:
        self._cipher = AESGCM(_derived(secret)) if secret else None

    def seal(self, kid: str, private: bytes) -> bytes:
        """Return the bytes to store."""
        if self._cipher is None:
            return _PLAIN + private
        nonce = os.urandom(_NONCE)
        return _SEALED + nonce + self._cipher.encrypt(nonce, private, kid.encode())

    def open(self, kid: str, sealed: bytes) -> bytes:
        """Return the private key; raises `ConfigError` if the secret is not the one it was sealed with."""
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
