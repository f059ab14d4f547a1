"""The issuer's side: a private key that signs RFC 9068 access tokens, and the document of its public half."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from backstay.auth.verifier import ALGORITHM


class SigningKey:
    """A P-256 key pair; its id is the thumbprint of its public half (RFC 7638)."""

    def __init__(self, key: ECKey) -> None:
        self._key = key
        self.kid = key.thumbprint()

    @classmethod
    def generate(cls) -> "SigningKey":
        """Return a new key pair."""
        return cls(ECKey.generate_key("P-256"))

    @classmethod
    def from_pem(cls, pem: bytes) -> "SigningKey":
        """Return the key pair that `pem` wrote; raises `ValueError` for anything else."""
        return cls(ECKey.import_key(pem))

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"

    def pem(self) -> bytes:
        """Return the private key in PEM form; keep it secret."""
        return self._key.as_pem(private=True)

    def public_pem(self) -> bytes:
        """Return the public key alone."""
        return self._key.as_pem(private=False)

    def public(self) -> dict[str, Any]:
        """Return the public key as an entry of a key set."""
        fields = self._key.as_dict(private=False)
        return {**fields, "kid": self.kid, "use": "sig", "alg": ALGORITHM}

    def sign(self, claims: Mapping[str, Any], *, header: Mapping[str, Any] | None = None) -> str:
        """Return a compact token of type `at+jwt`; `header` adds or replaces fields."""
        fields = {"alg": ALGORITHM, "typ": "at+jwt", "kid": self.kid, **(header or {})}
        return jwt.encode(fields, dict(claims), self._key, [ALGORITHM])


def jwks(keys: Iterable[SigningKey]) -> bytes:
    """Return the JWKS document of these keys' public halves."""
    return json.dumps({"keys": [key.public() for key in keys]}, separators=(",", ":")).encode()
