"""Identity: access tokens checked on the spot, the issuer's keys, and a service's own token."""

from backstay.auth.errors import AuthError, Forbidden, InvalidToken, KeysUnavailable, TokenUnavailable
from backstay.auth.jwks import JwksCache, JwksStatistics
from backstay.auth.keys import KeySource, StaticKeys
from backstay.auth.principal import Principal, require
from backstay.auth.service_tokens import ServiceTokens, ServiceTokenStatistics
from backstay.auth.signing import SigningKey, jwks
from backstay.auth.verifier import TokenVerifier, VerifierStatistics

__all__ = [
    "AuthError",
    "Forbidden",
    "InvalidToken",
    "JwksCache",
    "JwksStatistics",
    "KeySource",
    "KeysUnavailable",
    "Principal",
    "ServiceTokenStatistics",
    "ServiceTokens",
    "SigningKey",
    "StaticKeys",
    "TokenUnavailable",
    "TokenVerifier",
    "VerifierStatistics",
    "jwks",
    "require",
]
