"""Public keys by id. Only P-256 signature keys are taken from a key set; anything else in it is ignored."""

import json
from collections.abc import Mapping
from typing import Protocol

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

MAX_KEYS = 32
MAX_BYTES = 64 * 1024

Keys = Mapping[str, ECKey]


class KeySource(Protocol):
    """A source of a verifier's keys."""

    @property
    def version(self) -> int:
        """Changes whenever the keys change; what was verified with an older version is verified again."""

    def find(self, kid: str) -> ECKey | None:
        """Return the key of that id, or None; raises `KeysUnavailable` when there is no usable key set."""


class StaticKeys:
    """A fixed key set, for tests and for issuers that never rotate."""

    version = 1

    def __init__(self, jwks: str | bytes) -> None:
        self._keys = parse_jwks(jwks)

    def find(self, kid: str) -> ECKey | None:
        """Return the key of that id, or None."""
        return self._keys.get(kid)


def parse_jwks(document: str | bytes) -> Keys:
    """Return the usable keys of a JWKS document; raises `ValueError` if it is none or holds no usable key."""
    if len(document) > MAX_BYTES:
        raise ValueError(f"key set of {len(document)} bytes, at most {MAX_BYTES} are read")
    entries = _entries(document)
    keys = {entry["kid"]: ECKey.import_key(_public(entry)) for entry in entries if _is_usable(entry)}
    if not keys:
        raise ValueError("key set without a P-256 signature key")
    return keys


def _entries(document: str | bytes) -> list[dict[str, str]]:
    content = json.loads(document)
    entries = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f'key set must be {{"keys": […]}} with at most {MAX_KEYS} keys')
    return [entry for entry in entries if isinstance(entry, dict)]


def _is_usable(entry: dict[str, str]) -> bool:
    if entry.get("kty") != "EC" or entry.get("crv") != "P-256" or not isinstance(entry.get("kid"), str):
        return False
    if entry.get("use", "sig") != "sig" or entry.get("alg", "ES256") != "ES256":
        return False
    try:
        ECKey.import_key(_public(entry)).as_dict(private=False)
    except (JoseError, ValueError, TypeError, KeyError):
        return False
    return True


def _public(entry: dict[str, str]) -> dict[str, str | list[str]]:
    return {name: entry[name] for name in ("kty", "crv", "x", "y", "kid")}
