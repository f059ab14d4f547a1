"""Identity: access tokens checked on the spot, the issuer's keys, and a service's own token."""

from backstay.auth.endpoints import FixedEndpoints, parse_endpoints
from backstay.auth.errors import (
    AuthError,
    EndpointsUnavailable,
    Forbidden,
    InvalidToken,
    KeysUnavailable,
    TokenUnavailable,
)
from backstay.auth.jwks import JwksCache, JwksStatistics
from backstay.auth.keys import KeySource, StaticKeys, parse_jwks
from backstay.auth.principal import Principal, require
from backstay.auth.service_tokens import ServiceTokens, ServiceTokenStatistics, parse_token
from backstay.auth.signing import SigningKey, jwks
from backstay.auth.verifier import TokenVerifier, VerifierStatistics

__all__ = [
    "AuthError",
    "EndpointsUnavailable",
    "FixedEndpoints",
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
    "parse_endpoints",
    "parse_jwks",
    "parse_token",
    "require",
]
